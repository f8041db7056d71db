/* Vectors of float32 from memory in either dtype of a cache: pairs, so that bfloat16 widens without a shuffle. */
#pragma once

#include "base/kernels.h"

#define PAIR (2 * LANES) /* numbers in a pair of vectors */

typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef float four __attribute__((vector_size(16)));
typedef float eight __attribute__((vector_size(32)));

/* PAIR neighbours. Of float32 `a` holds the first half; of bfloat16 those at even places, and `b` those at odd ones. */
typedef struct {
    floats a, b;
} pair;

/* Of all lanes, halves added to halves. */
INLINE float sum(floats v)
{
#if LANES == 16
    eight half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif LANES == 8
    eight half = v;
#endif
#if LANES > 4
    four quarter = __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
#else
    four quarter = v;
#endif
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

/* PAIR numbers of the array at `from`, of float32 if `wide`, else of bfloat16, from number `i` on. */
INLINE pair load(const void *from, int64_t i, bool wide)
{
    pair both;
    if (wide) {
        memcpy(&both, (const float *)from + i, sizeof both);
        return both;
    }
    words bits;
    memcpy(&bits, (const bfloat16 *)from + i, sizeof bits);
    both.a = (floats)(bits << 16);
    both.b = (floats)(bits & 0xffff0000);
    return both;
}

/* As `narrow`, each in the upper half of its lane. */
INLINE words narrow_lanes(floats values)
{
    words bits = (words)values, nan = (words)((bits & 0x7fffffff) > 0x7f800000);
    return (~nan & (bits + 0x7fff + (bits >> 16 & 1))) | (nan & 0x7fc00000);
}

/* To bfloat16 and back. */
INLINE pair rounded(pair both)
{
    both.a = (floats)(narrow_lanes(both.a) & 0xffff0000);
    both.b = (floats)(narrow_lanes(both.b) & 0xffff0000);
    return both;
}

/* The reverse of `load`. */
INLINE void store(void *to, int64_t i, pair both, bool wide)
{
    if (wide) {
        memcpy((float *)to + i, &both, sizeof both);
        return;
    }
    words bits = narrow_lanes(both.a) >> 16 | (narrow_lanes(both.b) & 0xffff0000);
    memcpy((bfloat16 *)to + i, &bits, sizeof bits);
}

/* LANES neighbours from number `i` on. */
INLINE void store_lanes(void *to, int64_t i, floats values, bool wide)
{
    if (wide) {
        memcpy((float *)to + i, &values, sizeof values);
        return;
    }
    halves bits = __builtin_convertvector(narrow_lanes(values) >> 16, halves);
    memcpy((bfloat16 *)to + i, &bits, sizeof bits);
}

/* Number `i` of such an array. */
INLINE float get(const void *from, int64_t i, bool wide)
{
    return wide ? ((const float *)from)[i] : widen(((const bfloat16 *)from)[i]);
}

INLINE void set(void *to, int64_t i, float value, bool wide)
{
    if (wide)
        ((float *)to)[i] = value;
    else
        ((bfloat16 *)to)[i] = narrow(value);
}

/* The address of number `i`. */
INLINE void *at(const void *numbers, int64_t i, bool wide)
{
    return (char *)numbers + i * (wide ? 4 : 2);
}
