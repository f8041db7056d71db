/* Cuts the slots of a layer into parts, one for each call of a function, and adds up what comes back. */
#include "base/vectors.h"

#define FREE_ROWS 3. /* of an expert take as long as one: reading its weights takes the time (`benchmarks.linear`) */

struct part { /* grouping.py's Part */
    int64_t block;
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
        if (!part || part->block != cut->block_of[number] || part->work + work > most) {
            part = &cut->parts[parts++];
            *part = (struct part){cut->block_of[number], 0, 0, 0, slots, 0};
        }
        expert->part = parts - 1;
        part->work += work;
        part->slots += expert->rows;
        slots += expert->rows;
    }
    return parts;
}

/* Puts slot (row, k) into its expert's part. */
INLINE void put(const struct cut *cut, struct part *part, int64_t row, int64_t k)
{
    int32_t *rows = cut->rows + part->first, *slot = cut->slots + 3 * part->first + part->filled;
    int64_t at = row * cut->top_k + k;
    if (!part->rows || rows[part->rows - 1] != row)
        rows[part->rows++] = (int32_t)row;
    slot[0] = (int32_t)(part->rows - 1);
    slot[part->slots] = (int32_t)cut->place_of[cut->index[at]];
    float weight = get(cut->weight, at, cut->wide);
    memcpy(&slot[2 * part->slots], &weight, sizeof weight);
    cut->slot_rows[part->first + part->filled++] = (int32_t)row;
}

/* Returns how many parts there are. */
EXPORT int64_t cut(const struct cut *cut)
{
    int64_t parts = split(cut);
    for (int64_t row = 0; row < cut->tokens; row++)
        for (int64_t k = 0; k < cut->top_k; k++) {
            int64_t expert = cut->index[row * cut->top_k + k];
            if (is_expert(cut, expert))
                put(cut, &cut->parts[cut->experts[expert].part], row, k);
        }
    return parts;
}

struct answer { /* to a part */
    const int32_t *rows; /* [count] of the layer, ascending */
    const float *sums;   /* [count, width] */
    int64_t count;
};

/* `out` [width] of the sum of `count` rows, in their order. */
INLINE void add_up(const float *const *rows, int64_t count, void *out, int64_t width, bool wide)
{
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        floats total = {0}, its;
        for (int64_t n = 0; n < count; n++) {
            memcpy(&its, rows[n] + i, sizeof its);
            total += its;
        }
        store_lanes(out, i, total, wide);
    }
    for (; i < width; i++) {
        float total = 0;
        for (int64_t n = 0; n < count; n++)
            total += rows[n][i];
        set(out, i, total, wide);
    }
}

struct combine {
    void *out; /* [tokens, width] */
    int64_t tokens, width;
    int64_t wide;  /* out is float32, else bfloat16 */
    int64_t count; /* at least one */
    struct answer answers[];
};

INLINE void combine_rows(const struct combine *task, bool wide)
{
    const float *rows[task->count]; /* that came for one row of the layer */
    int64_t done[task->count];      /* rows of each answer */
    memset(done, 0, sizeof done);
    for (int64_t token = 0; token < task->tokens; token++) {
        int64_t found = 0;
        for (int64_t n = 0; n < task->count; n++) {
            const struct answer *answer = &task->answers[n];
            if (done[n] < answer->count && answer->rows[done[n]] == token)
                rows[found++] = answer->sums + done[n]++ * task->width;
        }
        add_up(rows, found, at(task->out, token * task->width, wide), task->width, wide);
    }
}

/* Adds up what came for each row of the layer, in the order of the answers. */
EXPORT void combine(const struct combine *task)
{
    if (task->wide)
        combine_rows(task, true);
    else
        combine_rows(task, false);
}
