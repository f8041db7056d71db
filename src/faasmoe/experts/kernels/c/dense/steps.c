/* A list of steps: kernels and operations on numbers in fixed memory, one after the other without Python between them.
 *
 * Operations are those that are rounded exactly, so that they have torch's bits.
 */
#include "dense/steps.h"

#include "base/vectors.h"

/* What a step is: its words are arguments of the function of this name, or a struct that it takes. */
enum what {
    NORMALISE, TURN_HALVES, TEAM_RUN, TEAM_BEGIN, TEAM_END, ATTEND, ADD, MULTIPLY, CONVERT, GATHER, ATTEND_LATENT,
};

/* What became of a list: steps.py's _FAILURES. */
enum outcome { DONE, NO_MEMORY, NO_ROW };

struct step {
    int64_t what, words[11];
};

/* [rows, width] of `a` and `b` to contiguous `y`, all of float32 if `wide`, else of bfloat16. */
struct both {
    const void *a, *b;
    void *y;
    int64_t rows, width, wide;
    int64_t a_row, b_row; /* numbers between two rows */
    int64_t a_one, b_one; /* whether a row is one number, for all of `y`'s row */
};

/* [rows, width] in another dtype or the same. */
struct convert {
    const void *x;
    void *y;
    int64_t rows, width;
    int64_t x_row, y_row; /* numbers between two rows */
    int64_t x_wide, y_wide;
};

/* Rows of a table one after the other. */
struct gather {
    const char *table;
    const int64_t *places; /* [count] */
    char *y;
    int64_t count, bytes; /* of a row */
    int64_t rows;         /* of the table */
    int64_t wrap;         /* what is added to places below 0 */
};

INLINE pair whole(const void *from, int64_t i, bool wide, bool one)
{
    if (one)
        return (pair){every(get(from, 0, wide)), every(get(from, 0, wide))};
    return load(from, i, wide);
}

INLINE void row_of(const struct both *how, const void *a, const void *b, void *y, bool wide, bool add)
{
    int64_t i = 0;
    for (; i + PAIR <= how->width; i += PAIR) {
        pair first = whole(a, i, wide, how->a_one), second = whole(b, i, wide, how->b_one);
        if (add)
            store(y, i, (pair){first.a + second.a, first.b + second.b}, wide);
        else
            store(y, i, (pair){first.a * second.a, first.b * second.b}, wide);
    }
    for (; i < how->width; i++) {
        float first = get(a, how->a_one ? 0 : i, wide), second = get(b, how->b_one ? 0 : i, wide);
        set(y, i, add ? first + second : first * second, wide);
    }
}

INLINE void combine_rows(const struct both *how, bool wide, bool add)
{
    for (int64_t row = 0; row < how->rows; row++)
        row_of(how, at(how->a, row * how->a_row, wide), at(how->b, row * how->b_row, wide),
               at(how->y, row * how->width, wide), wide, add);
}

static void combine_both(const struct both *how, bool add)
{
    if (how->wide)
        combine_rows(how, true, add);
    else
        combine_rows(how, false, add);
}

static void convert_rows(const struct convert *how)
{
    for (int64_t row = 0; row < how->rows; row++) {
        const void *x = at(how->x, row * how->x_row, how->x_wide);
        void *y = at(how->y, row * how->y_row, how->y_wide);
        if (how->x_wide == how->y_wide)
            memcpy(y, x, (size_t)(how->width * (how->x_wide ? 4 : 2)));
        else
            for (int64_t i = 0; i < how->width; i++)
                set(y, i, get(x, i, how->x_wide), how->y_wide);
    }
}

/* Whether all places are rows of the table. */
static bool gather_rows(const struct gather *how)
{
    for (int64_t i = 0; i < how->count; i++) {
        int64_t place = how->places[i] + (how->places[i] < 0 ? how->wrap : 0);
        if (place < 0 || place >= how->rows)
            return false;
        memcpy(how->y + i * how->bytes, how->table + place * how->bytes, (size_t)how->bytes);
    }
    return true;
}

/* False if there is no memory. */
static bool run_layers(enum what what, const int64_t *words)
{
    void *team = (void *)words[0], *y = (void *)words[3];
    const void *group = (const void *)words[1], *x = (const void *)words[2];
    if (what == TEAM_BEGIN)
        return team_begin(team, group, x, y, words[4]);
    return (what == TEAM_END ? team_end : team_run)(team, group, x, y, words[4], words[5]);
}

static enum outcome run_step(const struct step *step)
{
    const int64_t *words = step->words;
    switch (step->what) {
    case NORMALISE:
        normalise((const struct norm *)words[0], (const bfloat16 *)words[1], (bfloat16 *)words[2], words[3]);
        break;
    case TURN_HALVES:
        turn_halves((const struct turn *)words);
        break;
    case TEAM_RUN:
    case TEAM_BEGIN:
    case TEAM_END:
        if (!run_layers(step->what, words))
            return NO_MEMORY;
        break;
    case ATTEND:
        attend((const struct attention *)words[0], (const struct place *)words[1], words[2]);
        break;
    case ATTEND_LATENT:
        attend_latent((const struct latent *)words[0], (const struct place *)words[1], words[2]);
        break;
    case ADD:
    case MULTIPLY:
        combine_both((const struct both *)words, step->what == ADD);
        break;
    case CONVERT:
        convert_rows((const struct convert *)words);
        break;
    default:
        if (!gather_rows((const struct gather *)words))
            return NO_ROW;
    }
    return DONE;
}

/* Run `count` steps, or those before one that fails. Returns what became of them, an `enum outcome`. */
EXPORT int64_t run_steps(const struct step *steps, int64_t count)
{
    enum outcome outcome = DONE;
    for (const struct step *step = steps; outcome == DONE && step < steps + count; step++)
        outcome = run_step(step);
    return outcome;
}
