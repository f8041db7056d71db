/* What one core can do at most, for benchmarks: nothing but reading, nothing but arithmetic. */
#include "linear/tile.h"

enum { SUMS = 12 }; /* more than a core has under way, fewer than it has registers */

/* Reads `size` bytes in order, as fast as memory gives them. Returns a sum of them. */
EXPORT float read_all(const char *memory, int64_t size)
{
    floats sums[4] = {{0}};
    for (; size >= 4 * VECTOR; size -= 4 * VECTOR, memory += 4 * VECTOR) {
        UNROLL
        for (int i = 0; i < 4; i++)
            sums[i] = (floats)((words)sums[i] ^ (words)load(memory + VECTOR * i));
    }
    return ((words)sums[0] ^ (words)sums[1] ^ (words)sums[2] ^ (words)sums[3])[0];
}

/* Sums of `times` * SUMS products of vectors, of bfloat16 or of float32. */
INLINE float repeat(bool dots, int64_t times, float value)
{
    floats weights = (floats){0} + value, sums[SUMS];
    for (int i = 0; i < SUMS; i++)
        sums[i] = weights * (float)i; /* equal ones would be computed once */
    for (; times > 0; times--) {
        UNROLL
        for (int i = 0; i < SUMS; i++)
            sums[i] = dots ? add_products(BFLOAT16, weights, (char *)&weights, sums[i])
                           : multiply_add(weights, weights, sums[i]);
    }
    for (int i = 1; i < SUMS; i++)
        sums[0] += sums[i];
    return sums[0][0];
}

/* Multiplies and adds `times` * SUMS vectors of float32. Returns how many products a vector has. */
EXPORT int64_t multiply_float32(int64_t times)
{
    volatile float value = 1;
    value = repeat(false, times, value);
    return LANES;
}

/* The same with vectors of bfloat16; 0 and nothing done if the CPU has no instruction for it. */
EXPORT int64_t multiply_bfloat16(int64_t times)
{
#if DOTS
    volatile float value = 1;
    value = repeat(true, times, value);
    return 2 * LANES;
#else
    return times * 0;
#endif
}
