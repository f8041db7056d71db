/* Cuts the slots of a layer into parts, one for each call of a function, and adds up what comes back.
 *
 * A row's sum is, in the order of blocks, the sum of its sums over each block's experts in their order. Where a block is
 * cut hangs on the whole step, and must change no bit of that. So a part answers with a row's sum only if the row's
 * experts in the block begin there; in a later part of the block each of the row's slots is a row of its own.
 */
#include "base/vectors.h"

#define FREE_ROWS 3. /* of an expert take as long as one: reading its weights takes the time (`benchmarks.linear`) */

struct part { /* grouping.py's Part */
    int64_t block, follows; /* follows: another part of its block */
    double work;
    int64_t slots, rows;   /* how many */
    int64_t first, filled; /* where its slots begin among those of all parts, and how many are in place */
};

struct expert {
    int64_t rows, part; /* part -1: it has no rows */
};

struct cut {
    const int64_t *index; /* [tokens, top_k] experts; what is no expert is skipped */
    const void *weight;   /* [tokens, top_k] */
    int64_t wide;         /* it is float32, else bfloat16 */
    int64_t tokens, top_k;
    const int64_t *block_of, *place_of; /* [experts] */
    struct expert *experts;             /* [count]: memory to work in */
    int64_t count, parallelism;
    struct part *parts;        /* [count], of which as many are filled as there are parts */
    int32_t *slots;            /* [3 * tokens * top_k]: by part rows, experts and weights, as an envelope has them */
    int32_t *rows, *slot_rows; /* [tokens * top_k]: rows of the layer, a part's from where its slots begin */
};

/* In readings of an expert. */
INLINE double work_of(int64_t rows)
{
    double work = (double)rows / FREE_ROWS;
    return rows && work < 1 ? 1 : work;
}

INLINE bool is_expert(const struct cut *cut, int64_t expert)
{
    return expert >= 0 && expert < cut->count;
}

/* Counts each expert's rows. Returns the work that is an even share. */
INLINE double count_rows(const struct cut *cut)
{
    double work = 0;
    for (int64_t expert = 0; expert < cut->count; expert++)
        cut->experts[expert] = (struct expert){0, -1};
    for (int64_t i = 0; i < cut->tokens * cut->top_k; i++)
        if (is_expert(cut, cut->index[i]))
            cut->experts[cut->index[i]].rows++;
    for (int64_t expert = 0; expert < cut->count; expert++)
        work += work_of(cut->experts[expert].rows);
    return work / (double)cut->parallelism;
}

/* Gives each expert that has rows its part. Returns how many parts there are. */
INLINE int64_t split(const struct cut *cut)
{
    double most = count_rows(cut);
    int64_t parts = 0, slots = 0;
    for (int64_t number = 0; number < cut->count; number++) {
        struct expert *expert = &cut->experts[number];
        if (!expert->rows)
            continue;
        struct part *part = parts ? &cut->parts[parts - 1] : 0;
        double work = work_of(expert->rows);
        bool follows = part && part->block == cut->block_of[number];
        if (!follows || part->work + work > most) {
            part = &cut->parts[parts++];
            *part = (struct part){cut->block_of[number], follows, 0, 0, 0, slots, 0};
        }
        expert->part = parts - 1;
        part->work += work;
        part->slots += expert->rows;
        slots += expert->rows;
    }
    return parts;
}

/* Puts slot (row, k) into its expert's part; `apart`: not with others of the row. */
INLINE void put(const struct cut *cut, struct part *part, int64_t row, int64_t k, bool apart)
{
    int32_t *rows = cut->rows + part->first, *slot = cut->slots + 3 * part->first + part->filled;
    int64_t at = row * cut->top_k + k;
    if (apart || !part->rows || rows[part->rows - 1] != row)
        rows[part->rows++] = (int32_t)row;
    slot[0] = (int32_t)(part->rows - 1);
    slot[part->slots] = (int32_t)cut->place_of[cut->index[at]];
    float weight = get(cut->weight, at, cut->wide);
    memcpy(&slot[2 * part->slots], &weight, sizeof weight);
    cut->slot_rows[part->first + part->filled++] = (int32_t)row;
}

/* `places` [top_k] of the row's slots, by expert, as functions add them. Returns how many there are. */
INLINE int64_t in_order(const struct cut *cut, int64_t row, int64_t *places)
{
    const int64_t *index = cut->index + row * cut->top_k;
    int64_t count = 0;
    for (int64_t k = 0; k < cut->top_k; k++) {
        if (!is_expert(cut, index[k]))
            continue;
        int64_t at = count++;
        for (; at && index[places[at - 1]] > index[k]; at--)
            places[at] = places[at - 1];
        places[at] = k;
    }
    return count;
}

/* Returns how many parts there are. */
EXPORT int64_t cut(const struct cut *cut)
{
    int64_t parts = split(cut), places[cut->top_k + 1]; /* an array has at least one */
    for (int64_t row = 0; row < cut->tokens; row++) {
        const struct part *begins = 0; /* where the row's experts of the block begin */
        int64_t count = in_order(cut, row, places);
        for (int64_t i = 0; i < count; i++) {
            int64_t expert = cut->index[row * cut->top_k + places[i]];
            struct part *part = &cut->parts[cut->experts[expert].part];
            if (!begins || begins->block != part->block)
                begins = part;
            put(cut, part, row, places[i], part != begins);
        }
    }
    return parts;
}

struct answer { /* to a part */
    const int32_t *rows; /* [count] of the layer, ascending; a row comes several times if its slots are apart */
    const float *sums;   /* [count, width] */
    int64_t count;
    int64_t follows; /* it is to another part of the block before */
};

/* What an answer has of one row. */
struct run {
    const float *sums; /* [count, width] */
    int64_t count;
    bool follows; /* the row's run before is of the same block */
};

/* `out` [width] of the runs of a row: those of each block are added up, and then the blocks. Not `cut`: each run is one
 * row, of a block of its own.
 */
INLINE void add_up(const struct run *runs, int64_t count, void *out, int64_t width, bool wide, bool cut)
{
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        floats total = {0}, block = {0}, its;
        for (int64_t n = 0; n < count; n++) {
            if (cut && !runs[n].follows) {
                total += block;
                block = (floats){0};
            }
            for (int64_t row = 0; row < (cut ? runs[n].count : 1); row++) {
                memcpy(&its, runs[n].sums + row * width + i, sizeof its);
                block += its;
            }
        }
        store_lanes(out, i, total + block, wide);
    }
    for (; i < width; i++) {
        float total = 0, block = 0;
        for (int64_t n = 0; n < count; n++) {
            if (cut && !runs[n].follows) {
                total += block;
                block = 0;
            }
            for (int64_t row = 0; row < (cut ? runs[n].count : 1); row++)
                block += runs[n].sums[row * width + i];
        }
        set(out, i, total + block, wide);
    }
}

struct combine {
    void *out; /* [tokens, width] */
    int64_t tokens, width;
    int64_t wide;  /* out is float32, else bfloat16 */
    int64_t count; /* at least one */
    struct answer answers[];
};

/* `runs` of a row; `done` are the rows of each answer that came before. Returns how many there are. */
INLINE int64_t runs_of(const struct combine *task, int64_t token, int64_t *done, struct run *runs)
{
    int64_t found = 0;
    bool begun = false; /* the block has a run */
    for (int64_t n = 0; n < task->count; n++) {
        const struct answer *answer = &task->answers[n];
        int64_t first = done[n];
        while (done[n] < answer->count && answer->rows[done[n]] == token)
            done[n]++;
        begun &= answer->follows != 0;
        if (done[n] == first)
            continue;
        runs[found++] = (struct run){answer->sums + first * task->width, done[n] - first, begun};
        begun = true;
    }
    return found;
}

INLINE void combine_rows(const struct combine *task, bool wide, bool cut)
{
    struct run runs[task->count];
    int64_t done[task->count];
    memset(done, 0, sizeof done);
    for (int64_t token = 0; token < task->tokens; token++) {
        int64_t found = runs_of(task, token, done, runs);
        add_up(runs, found, at(task->out, token * task->width, wide), task->width, wide, cut);
    }
}

/* Adds up what came for each row of the layer; answers are in the order of parts. */
EXPORT void combine(const struct combine *task)
{
    bool cut = false;
    for (int64_t n = 0; n < task->count; n++)
        cut |= task->answers[n].follows != 0;
    if (task->wide)
        cut ? combine_rows(task, true, true) : combine_rows(task, true, false);
    else
        cut ? combine_rows(task, false, true) : combine_rows(task, false, false);
}
