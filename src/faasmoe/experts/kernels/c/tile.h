/* The innermost loop of a product: a few weight rows by a few rows of x, with all their sums in registers.
 *
 * A sum is LANES running sums, to each of which its columns are added in order, so a row's result has the same bits
 * whatever rows come with it. Columns go by steps of 2 * LANES. Where the CPU adds up products of bfloat16, a step of
 * bfloat16 weights is one instruction for each sum, and x is bfloat16. Elsewhere weights become float32 in registers,
 * as x is: those of bfloat16 pair by pair, which a shift and a mask take apart, so a step of x has its even columns
 * first, then the odd ones; those of eight bits in order. x is one stream, step by step: rows of x side by side would
 * all be in the same few places of the first cache.
 */
#pragma once

#include "kernels.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#define DOTS 1 /* whether the CPU adds up products of bfloat16 */
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#define DOTS 1
#else
#define DOTS 0
#endif
#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

enum { STEP = 2 * LANES, VECTOR = sizeof(floats) };
/* With their sums these fill 32 registers, or the 16 that x86 has without AVX-512. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { MOST_ROWS = 8, MOST_OUTS = 3 };
#else
enum { MOST_ROWS = 4, MOST_OUTS = 3 };
#endif

typedef enum { BFLOAT16, INT8 } Format;
typedef int8_t bytes __attribute__((vector_size(LANES)));
typedef struct {
    floats low, high; /* float32 of a step's two halves; for sums of products of bfloat16 all in `low`, as it is */
} Step;

INLINE int64_t weight_bytes(Format format)
{
    return format == INT8 ? 1 : 2;
}

/* Of a column of a row of x, as the tiles read it. */
INLINE int64_t packed_bytes(Format format)
{
    return DOTS && format == BFLOAT16 ? sizeof(bfloat16) : sizeof(float);
}

INLINE floats load(const char *address)
{
    floats loaded;
    memcpy(&loaded, address, sizeof loaded);
    return loaded;
}

INLINE floats multiply_add(floats a, floats b, floats sum)
{
#if defined(__AVX512F__)
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__FMA__)
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#elif defined(__aarch64__)
    return (floats)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + sum;
#endif
}

INLINE floats halves(const char *address)
{
    bytes narrow;
    memcpy(&narrow, address, sizeof narrow);
    return __builtin_convertvector(__builtin_convertvector(narrow, ints), floats);
}

INLINE Step read_step(Format format, const char *weights)
{
    if (format == INT8)
        return (Step){halves(weights), halves(weights + LANES)};
    floats pairs = load(weights);
    if (DOTS)
        return (Step){pairs, pairs};
    return (Step){(floats)((words)pairs << 16), (floats)((words)pairs & 0xffff0000u)};
}

INLINE floats add_step(Format format, Step weights, const char *x, floats sum)
{
#if defined(__AVX512BF16__)
    if (format == BFLOAT16)
        return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights.low, (__m512bh)load(x));
#elif DOTS
    if (format == BFLOAT16)
        return (floats)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)weights.low, (bfloat16x8_t)load(x));
#endif
    (void)format;
    sum = multiply_add(weights.low, load(x), sum);
    return multiply_add(weights.high, load(x + VECTOR), sum);
}

/* Add a step's products to `sums` [outs, rows]. What lies `ahead` bytes behind the weights is fetched meanwhile. */
INLINE void tile_step(Format format, int outs, int rows, const char *w, int64_t line, const char *x, floats *sums,
                      int64_t ahead)
{
    Step weights[MOST_OUTS];
    UNROLL
    for (int out = 0; out < outs; out++) {
        weights[out] = read_step(format, w + line * out);
        __builtin_prefetch(w + line * out + ahead);
    }
    UNROLL
    for (int row = 0; row < rows; row++) {
        UNROLL
        for (int out = 0; out < outs; out++)
            sums[rows * out + row] =
                add_step(format, weights[out], x + STEP * packed_bytes(format) * row, sums[rows * out + row]);
    }
}

/* Add the products of some columns to `running` [outs, rows], which begins at zero if `fresh`.
 *
 * `w`: the weight rows, `line` bytes apart; `x`: the rows' columns, step after step, the last one filled with zeros.
 */
INLINE void tile(Format format, int outs, int rows, const char *w, int64_t line, const char *x, floats *running,
                 int64_t columns, bool fresh, int64_t ahead)
{
    const int64_t step_bytes = STEP * weight_bytes(format), x_bytes = STEP * packed_bytes(format) * rows;
    floats sums[MOST_OUTS * MOST_ROWS];
    UNROLL
    for (int i = 0; i < outs * rows; i++)
        sums[i] = fresh ? (floats){0} : running[i];
    for (int64_t steps = columns / STEP; steps > 0; steps--, w += step_bytes, x += x_bytes)
        tile_step(format, outs, rows, w, line, x, sums, ahead);
    if (columns % STEP) { /* what lies behind the weights may be no memory of ours */
        char rest[MOST_OUTS * STEP * 2] = {0};
        for (int out = 0; out < outs; out++)
            memcpy(rest + step_bytes * out, w + line * out, weight_bytes(format) * (columns % STEP));
        tile_step(format, outs, rows, rest, step_bytes, x, sums, 0);
    }
    UNROLL
    for (int i = 0; i < outs * rows; i++)
        running[i] = sums[i];
}
