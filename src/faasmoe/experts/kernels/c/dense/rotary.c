/* Rotary position embedding. */
#include "dense/steps.h"

#include "base/vectors.h"

/* x * cos + other * sin, rounded as torch rounds each operation. */
INLINE bfloat16 turned(float x, float other, bfloat16 cos, bfloat16 sin)
{
    return narrow(widen(narrow(x * widen(cos))) + widen(narrow(other * widen(sin))));
}

/* The same for PAIR numbers. */
INLINE pair turned_pair(pair x, pair other, pair cos, pair sin)
{
    pair left = rounded((pair){x.a * cos.a, x.b * cos.b});
    pair right = rounded((pair){other.a * sin.a, other.b * sin.b});
    return (pair){left.a + right.a, left.b + right.b};
}

INLINE void turn_head(const bfloat16 *x, const bfloat16 *cos, const bfloat16 *sin, bfloat16 *y, int64_t half)
{
    int64_t i = 0, j = half;
    for (; i + PAIR <= half; i += PAIR, j += PAIR) {
        pair first = load(x, i, false), second = load(x, j, false), minus = {-second.a, -second.b};
        store(y, i, turned_pair(first, minus, load(cos, i, false), load(sin, i, false)), false);
        store(y, j, turned_pair(second, first, load(cos, j, false), load(sin, j, false)), false);
    }
    for (; i < half; i++, j++) {
        y[i] = turned(widen(x[i]), -widen(x[j]), cos[i], sin[i]);
        y[j] = turned(widen(x[j]), widen(x[i]), cos[j], sin[j]);
    }
}

struct turn {
    const bfloat16 *x;
    int64_t x_token, x_head; /* numbers between two tokens, and between two heads */
    bfloat16 *y;             /* other memory than x's */
    int64_t y_token, y_head;
    const bfloat16 *cos, *sin; /* [tokens, dim] */
    int64_t tokens, heads, dim;
};

/* Turns the halves of each head of `x` [tokens, heads, dim]. */
EXPORT void turn_halves(const struct turn *turn)
{
    for (int64_t token = 0; token < turn->tokens; token++) {
        const bfloat16 *x = turn->x + token * turn->x_token;
        const bfloat16 *cos = turn->cos + token * turn->dim, *sin = turn->sin + token * turn->dim;
        bfloat16 *y = turn->y + token * turn->y_token;
        for (int64_t head = 0; head < turn->heads; head++)
            turn_head(x + head * turn->x_head, cos, sin, y + head * turn->y_head, turn->dim / 2);
    }
}
