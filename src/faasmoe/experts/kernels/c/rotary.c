/* Rotary position embedding. */
#include "kernels.h"

/* x * cos + other * sin, rounded as torch rounds each operation. */
INLINE bfloat16 turned(float x, float other, bfloat16 cos, bfloat16 sin)
{
    return narrow(widen(narrow(x * widen(cos))) + widen(narrow(other * widen(sin))));
}

INLINE void turn_head(const bfloat16 *x, const bfloat16 *cos, const bfloat16 *sin, bfloat16 *restrict y, int64_t half)
{
    for (int64_t i = 0; i < half; i++)
        y[i] = turned(widen(x[i]), -widen(x[half + i]), cos[i], sin[i]);
    for (int64_t i = 0; i < half; i++)
        y[half + i] = turned(widen(x[half + i]), widen(x[i]), cos[half + i], sin[half + i]);
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
