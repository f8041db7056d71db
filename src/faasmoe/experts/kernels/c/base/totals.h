/* Sums of all lanes of vectors, each as a tree of halves, LANES of them at once. */
#pragma once

#include "base/kernels.h"

/* For each group of lanes in `a` and `b`, the sum of its lower and its upper half; two vectors' sums fill one. */
#define HALVE(a, b, ...) (__builtin_shufflevector(a, b, __VA_ARGS__))
#if LANES == 16
#define SUM_EIGHTS(a, b)                                                                                               \
    HALVE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +                                              \
        HALVE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define SUM_FOURS(a, b)                                                                                                \
    HALVE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +                                            \
        HALVE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
#define SUM_TWOS(a, b)                                                                                                 \
    HALVE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +                                            \
        HALVE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define SUM_ONES(a, b)                                                                                                 \
    HALVE(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +                                           \
        HALVE(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31)
#elif LANES == 8
#define SUM_FOURS(a, b) HALVE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + HALVE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define SUM_TWOS(a, b) HALVE(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + HALVE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define SUM_ONES(a, b) HALVE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + HALVE(a, b, 1, 3, 9, 11, 5, 7, 13, 15)
#else
#define SUM_TWOS(a, b) HALVE(a, b, 0, 1, 4, 5) + HALVE(a, b, 2, 3, 6, 7)
#define SUM_ONES(a, b) HALVE(a, b, 0, 2, 4, 6) + HALVE(a, b, 1, 3, 5, 7)
#endif

/* The sums of LANES vectors, which are `stride` vectors apart. */
INLINE floats totals(const floats *vectors, int64_t stride)
{
    enum { BLOCKS = LANES / 4 };
    floats v[LANES];
    UNROLL /* or they go through memory, in the order that the last two steps turn into that of the lanes */
    for (int lane = 0; lane < LANES; lane++)
        v[BLOCKS * (lane % 4) + lane / 4] = vectors[stride * lane];
#if LANES == 16
    UNROLL
    for (int i = 0; i < 8; i++)
        v[i] = SUM_EIGHTS(v[2 * i], v[2 * i + 1]);
#endif
#if LANES >= 8
    UNROLL
    for (int i = 0; i < 4; i++)
        v[i] = SUM_FOURS(v[2 * i], v[2 * i + 1]);
#endif
    UNROLL
    for (int i = 0; i < 2; i++)
        v[i] = SUM_TWOS(v[2 * i], v[2 * i + 1]);
    return SUM_ONES(v[0], v[1]);
}
