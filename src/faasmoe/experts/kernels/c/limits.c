/* What one core can do at most, for benchmarks: nothing but reading, nothing but arithmetic. */
#include "tile.h"

enum { SUMS = 16 }; /* more than a core has under way, fewer than it has registers */

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

INLINE float repeat(Format format, int64_t times, float value)
{
    float values[2 * LANES] = {value, value};
    Step weights = {load((char *)values), load((char *)values)};
    floats sums[SUMS];
    for (int i = 0; i < SUMS; i++)
        sums[i] = (floats){0} + value * i; /* equal ones would be computed once */
    for (; times > 0; times--) {
        UNROLL
        for (int i = 0; i < SUMS; i++)
            sums[i] = add_step(format, weights, (char *)values, sums[i]);
    }
    for (int i = 1; i < SUMS; i++)
        sums[0] += sums[i];
    return sums[0][0];
}

/* As many steps of 2 * LANES products in float32 as `times` * 16. Returns how many products a step is. */
EXPORT int64_t multiply_float32(int64_t times)
{
    volatile float value = 1;
    value = repeat(INT8, times, value);
    return 2 * LANES;
}

/* The same with products of bfloat16; 0 and nothing done if the CPU has no instruction for it. */
EXPORT int64_t multiply_bfloat16(int64_t times)
{
    volatile float value = 1;
    if (!DOTS)
        return 0;
    value = repeat(BFLOAT16, times, value);
    return 2 * LANES;
}
