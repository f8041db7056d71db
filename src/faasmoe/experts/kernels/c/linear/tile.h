/* The innermost loop of a product: a few weight rows by a few rows of x, with all their sums in registers.
 *
 * A sum is LANES running sums, to each of which its columns are added in order, so a row's result has the same bits
 * whatever rows come with it. Columns go by steps of 2 * LANES. x is one stream, step by step: rows of x side by side
 * would all be in the same few places of the first cache.
 *
 * Weights in bfloat16: where the CPU adds up products of bfloat16, a step is one instruction for each sum, and x is
 * bfloat16. Elsewhere weights become float32 in registers, as x is, pair by pair: a shift and a mask take them apart,
 * so a step of x has its even columns first, then the odd ones.
 *
 * Weights in float32 and float16: x is float32, and both are in order. So it is of a model in float32 whose weights are
 * bfloat16, but for the order, which is that of bfloat16 elsewhere.
 *
 * Weights in eight bits: x has sixteen, whole numbers with a scale for each row. Sums are whole numbers, too, so
 * nothing is rounded for WHOLE columns, and then once, to float32. Where aarch64 adds up products of bytes, a step of x
 * has the upper bytes of its columns first, then the lower ones, which meet the same weights, and so have sums apart.
 */
#pragma once

#include "base/float16.h"
#include "base/intrinsics.h"

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define DOTS 1 /* whether the CPU adds up products of bfloat16 */
#else
#define DOTS 0
#endif

#ifdef __ARM_FEATURE_DOTPROD
#define BYTE_DOTS 1 /* whether a CPU that has no products of eight bits with sixteen adds up those of bytes */
#else
#define BYTE_DOTS 0
#endif

enum { STEP = 2 * LANES, VECTOR = sizeof(floats), CACHE_LINE = 64 };
enum { WHOLE = 1024 }; /* a lane adds up half of them in eight bits by sixteen at most: that stays below 2^31 */
/* With their sums these fill 32 registers, or the 16 that x86 has without AVX-512. TOGETHER weight rows are read before
 * they are multiplied: without AVX each product needs a register of its own.
 */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { MOST_ROWS = 8, MOST_OUTS = 3, TOGETHER = 3 };
#define BY_ROWS(each, ...) UP_TO_FOUR(each, __VA_ARGS__) FROM_FIVE_ON(each, __VA_ARGS__)
#else
#ifdef __AVX__
enum { MOST_ROWS = 4, MOST_OUTS = 3, TOGETHER = 3 };
#else
enum { MOST_ROWS = 4, MOST_OUTS = 3, TOGETHER = 1 };
#endif
#define BY_ROWS(each, ...) UP_TO_FOUR(each, __VA_ARGS__)
#endif
/* each(..., rows) for all numbers of rows that go through a tile together. */
#define UP_TO_FOUR(each, ...) each(__VA_ARGS__, 1) each(__VA_ARGS__, 2) each(__VA_ARGS__, 3) each(__VA_ARGS__, 4)
#define FROM_FIVE_ON(each, ...) each(__VA_ARGS__, 5) each(__VA_ARGS__, 6) each(__VA_ARGS__, 7) each(__VA_ARGS__, 8)

/* Of weights: rows of the table of formats/table.c. WIDE_BFLOAT16 is bfloat16 with x in float32. */
typedef enum {
    BFLOAT16,
    INT8,
    INT4,
    FLOAT32,
    FLOAT16,
    WIDE_BFLOAT16,
    INT6,
    Q8_0 = 8,
    Q4_K,
    Q6_K,
    GGUF_MXFP4,
    GROUPED_INT4,
    MXFP4 = 16,
    NVFP4,
    FP8,
} Format;
typedef int16_t shorts __attribute__((vector_size(4 * LANES)));

/* Whether x, bias and y are float32; else they are bfloat16. */
INLINE bool wide(Format format)
{
    return format == FLOAT32 || format == FLOAT16 || format == WIDE_BFLOAT16;
}

INLINE int64_t weight_bytes(Format format)
{
    return format == INT8 ? 1 : format == FLOAT32 ? 4 : 2;
}

/* Of a column of a row of x, as the tiles read it. */
INLINE int packed_bytes(Format format)
{
    return (DOTS && !wide(format)) || format == INT8 ? 2 : 4;
}

INLINE floats load(const char *address)
{
    floats loaded;
    memcpy(&loaded, address, sizeof loaded);
    return loaded;
}

/* 2 * LANES weights in eight bits. */
INLINE shorts widen_bytes(const char *address)
{
#if defined(__AVX512BW__)
    return (shorts)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)address));
#elif defined(__AVX2__)
    return (shorts)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)address));
#elif defined(__x86_64__)
    __m128i twice = _mm_loadl_epi64((const __m128i *)address);
    return (shorts)_mm_srai_epi16(_mm_unpacklo_epi8(twice, twice), 8);
#else
    return (shorts)vmovl_s8(vld1_s8((const int8_t *)address));
#endif
}

/* Add to each lane the products of two numbers of `a` and `b`. */
INLINE ints add_pairs(ints sum, shorts a, shorts b)
{
#if defined(__AVX512VNNI__)
    return (ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sum + (ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return sum + (ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return sum + (ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    int32x4_t half = vmlal_s16((int32x4_t)sum, vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    return (ints)vmlal_high_s16(half, (int16x8_t)a, (int16x8_t)b);
#endif
}

/* A step of weights in eight bits, as it meets x. */
INLINE floats read_bytes(const char *address)
{
#if BYTE_DOTS
    int64_t step;
    memcpy(&step, address, sizeof step);
    return (floats)vdupq_n_s64(step);
#else
    return (floats)widen_bytes(address);
#endif
}

/* Add a step's products of such weights with x. */
INLINE floats add_bytes(floats sum, floats weights, floats x)
{
#if BYTE_DOTS
    return (floats)vdotq_s32((int32x4_t)sum, (int8x16_t)weights, (int8x16_t)x);
#else
    sum = (floats)add_pairs((ints)sum, (shorts)weights, (shorts)x);
#if defined(__x86_64__) && !defined(__clang__)
    __asm__("" : "+v"(sum)); /* or GCC 12 has each sum in two registers, as floats and as whole numbers */
#endif
    return sum;
#endif
}

/* What `add_bytes` has added up, below 2^31 in each lane. */
INLINE floats whole_sums(floats sums)
{
    ints whole = (ints)sums;
#if BYTE_DOTS
    whole = (ints){whole[0] * 256 + whole[2], whole[1] * 256 + whole[3]};
#endif
    return __builtin_convertvector(whole, floats);
}

/* Vectors of x, and as many of weights, that a step has. */
INLINE int vectors_of(Format format)
{
    return STEP * packed_bytes(format) / VECTOR;
}

/* One of a step's vectors of weights, as it is multiplied. */
INLINE floats read_weights(Format format, const char *weights, int vector)
{
    if (format == INT8)
        return read_bytes(weights);
    if (format == FLOAT32)
        return load(weights + VECTOR * vector);
    if (format == FLOAT16)
        return widen_float16(weights + VECTOR / 2 * vector);
    words pairs = (words)load(weights);
    if (DOTS && format == BFLOAT16)
        return (floats)pairs;
    return (floats)(vector == 0 ? pairs << 16 : pairs & 0xffff0000u);
}

/* Add the products of a vector of weights with one of x. */
INLINE floats add_products(Format format, floats weights, const char *x, floats sum)
{
    if (format == INT8)
        return add_bytes(sum, weights, load(x));
#if defined(__AVX512BF16__)
    if (format == BFLOAT16)
        return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)load(x));
#elif DOTS
    if (format == BFLOAT16)
        return (floats)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)weights, (bfloat16x8_t)load(x));
#endif
    return multiply_add(weights, load(x), sum);
}

/* Add the products of a vector of so many weight rows with one of each row of x to `sums`. */
INLINE void tile_vector(Format format, int outs, int rows, const char *w, int64_t line, const char *x, floats *sums,
                        int vector, int64_t ahead)
{
    const int64_t x_column = VECTOR * vector, cache_line = CACHE_LINE * vector;
    floats weights[TOGETHER];
    UNROLL
    for (int out = 0; out < outs; out++) {
        weights[out] = read_weights(format, w + line * out, vector);
        if (cache_line < STEP * weight_bytes(format))
            __builtin_prefetch(w + line * out + ahead + cache_line, 0, 2);
    }
    UNROLL
    for (int row = 0; row < rows; row++) {
        const char *its = x + STEP * packed_bytes(format) * row + x_column;
        UNROLL
        for (int out = 0; out < outs; out++)
            sums[rows * out + row] = add_products(format, weights[out], its, sums[rows * out + row]);
    }
}

/* Add a step's products to `sums` [outs, rows]. What lies `ahead` bytes behind the weights is fetched meanwhile.
 *
 * It goes to the second cache, by which eight rows were measured to run a third faster than by the first.
 */
INLINE void tile_step(Format format, int outs, int rows, const char *w, int64_t line, const char *x, floats *sums,
                      int64_t ahead)
{
    const int together = outs < TOGETHER ? outs : TOGETHER;
    UNROLL
    for (int vector = 0; vector < vectors_of(format); vector++) {
        UNROLL
        for (int out = 0; out < outs; out += together) {
            tile_vector(format, together, rows, w + line * out, line, x, sums + rows * out, vector, ahead);
            if (vectors_of(format) > 1 || together < outs) /* or compilers read what follows into registers, too */
                __asm__ volatile("" ::: "memory");
        }
    }
}

/* Add the products of up to WHOLE columns to `sums`, which are whole numbers if the weights are in eight bits. */
INLINE void tile_columns(Format format, int outs, int rows, const char *w, int64_t line, const char *x, floats *sums,
                         int64_t columns, int64_t ahead)
{
    const int64_t step_bytes = STEP * weight_bytes(format), x_bytes = STEP * packed_bytes(format) * rows;
    ONE_BY_ONE
    for (int64_t steps = columns / STEP; steps > 0; steps--, w += step_bytes, x += x_bytes)
        tile_step(format, outs, rows, w, line, x, sums, ahead);
    if (columns % STEP) { /* what lies behind the weights may be no memory of ours */
        char rest[MOST_OUTS * STEP * 4] = {0};
        for (int out = 0; out < outs; out++)
            memcpy(rest + step_bytes * out, w + line * out, weight_bytes(format) * (columns % STEP));
        tile_step(format, outs, rows, rest, step_bytes, x, sums, 0);
    }
}

/* Add the products of some columns to `running` [outs, rows], which begins at zero if `fresh`.
 *
 * `w`: the weight rows, `line` bytes apart; `x`: the rows' columns, step after step, the last one filled with zeros.
 */
INLINE void tile(Format format, int outs, int rows, const char *w, int64_t line, const char *x, floats *running,
                 int64_t columns, bool fresh, int64_t ahead)
{
    floats sums[MOST_OUTS * MOST_ROWS];
    int64_t at_once = format == INT8 && columns > WHOLE ? WHOLE : columns;
    for (; columns > 0; columns -= at_once, fresh = false) {
        UNROLL
        for (int i = 0; i < outs * rows; i++)
            sums[i] = fresh || format == INT8 ? (floats){0} : running[i];
        tile_columns(format, outs, rows, w, line, x, sums, columns < at_once ? columns : at_once, ahead);
        UNROLL
        for (int i = 0; i < outs * rows; i++) {
            floats before = fresh ? (floats){0} : running[i];
            running[i] = format == INT8 ? before + whole_sums(sums[i]) : sums[i];
        }
        w += at_once * weight_bytes(format);
        x += at_once * packed_bytes(format) * rows;
    }
}
