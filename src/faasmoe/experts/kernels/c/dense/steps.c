/* A list of steps: kernels and operations on numbers in fixed memory, one after the other without Python between them.
 *
 * Operations are those that are rounded exactly, so that they have torch's bits.
 */
#include "dense/steps.h"

#include "base/vectors.h"

/* What a step is: its words are arguments of the function of this name, or a struct that it takes. */
enum what { NORMALISE, TURN_HALVES, TEAM_RUN, ADD, MULTIPLY, CONVERT };

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

/* [rows, width] to contiguous `y` in another dtype or the same. */
struct convert {
    const void *x;
    void *y;
    int64_t rows, width, x_row, x_wide, y_wide;
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
        void *y = at(how->y, row * how->width, how->y_wide);
        if (how->x_wide == how->y_wide)
            memcpy(y, x, (size_t)(how->width * (how->x_wide ? 4 : 2)));
        else
            for (int64_t i = 0; i < how->width; i++)
                set(y, i, get(x, i, how->x_wide), how->y_wide);
    }
}

/* Run `count` steps. False if there was no memory for one, after which none has run. */
EXPORT bool run_steps(const struct step *steps, int64_t count)
{
    for (const struct step *step = steps; step < steps + count; step++) {
        const int64_t *words = step->words;
        switch (step->what) {
        case NORMALISE:
            normalise((const struct norm *)words[0], (const bfloat16 *)words[1], (bfloat16 *)words[2], words[3]);
            break;
        case TURN_HALVES:
            turn_halves((const struct turn *)words);
            break;
        case TEAM_RUN:
            if (!team_run((void *)words[0], (const void *)words[1], (const void *)words[2], (void *)words[3],
                          words[4], words[5]))
                return false;
            break;
        case ADD:
        case MULTIPLY:
            combine_both((const struct both *)words, step->what == ADD);
            break;
        default:
            convert_rows((const struct convert *)words);
        }
    }
    return true;
}
