/* Root-mean-square norms. */
#include "dense/steps.h"

#include "base/vectors.h"

/* What becomes of a normalised number n and a weight w: bfloat16(n) * w, n * w, or n * (1 + w), each then rounded. */
enum kind { ROUNDED, PLAIN, ONE_MORE };

/* The sum of the squares of `width` numbers, always in the same order. */
INLINE float squares(const bfloat16 *x, int64_t width)
{
    floats sums[4] = {0};
    int64_t i = 0;
    for (; i + 2 * PAIR <= width; i += 2 * PAIR) {
        pair first = load(x, i, false), second = load(x, i + PAIR, false);
        sums[0] = multiply_add(first.a, first.a, sums[0]);
        sums[1] = multiply_add(first.b, first.b, sums[1]);
        sums[2] = multiply_add(second.a, second.a, sums[2]);
        sums[3] = multiply_add(second.b, second.b, sums[3]);
    }
    float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < width; i++)
        total += widen(x[i]) * widen(x[i]);
    return total;
}

INLINE void scale(const bfloat16 *x, const bfloat16 *weight, bfloat16 *y, int64_t width, float factor, enum kind kind)
{
    int64_t i = 0;
    for (; i + PAIR <= width; i += PAIR) {
        pair its = load(x, i, false), by = load(weight, i, false);
        its = (pair){its.a * factor, its.b * factor};
        if (kind == ROUNDED)
            its = rounded(its);
        if (kind == ONE_MORE)
            by = (pair){by.a + 1, by.b + 1};
        store(y, i, (pair){its.a * by.a, its.b * by.b}, false);
    }
    for (; i < width; i++) {
        float value = widen(x[i]) * factor, by = widen(weight[i]);
        if (kind == ROUNDED)
            value = widen(narrow(value));
        y[i] = narrow(value * (kind == ONE_MORE ? by + 1 : by));
    }
}

struct norm {
    const bfloat16 *weight; /* [width] */
    int64_t width, kind;
    float eps;
};

/* `x` [rows, width] to `y`, of the same shape and in other memory. */
EXPORT void normalise(const struct norm *norm, const bfloat16 *x, bfloat16 *y, int64_t rows)
{
    int64_t width = norm->width;
    for (int64_t row = 0; row < rows; row++, x += width, y += width) {
        float factor = 1 / __builtin_sqrtf(squares(x, width) / (float)width + norm->eps);
        if (norm->kind == ROUNDED)
            scale(x, norm->weight, y, width, factor, ROUNDED);
        else if (norm->kind == PLAIN)
            scale(x, norm->weight, y, width, factor, PLAIN);
        else
            scale(x, norm->weight, y, width, factor, ONE_MORE);
    }
}
