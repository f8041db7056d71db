/* Rows of x in whole numbers, for weights whose codes are whole numbers, too.
 *
 * 256 consecutive columns are a span. They have sixteen bits and one scale, a power of two: what has the eight bits of
 * bfloat16 and is no smaller than 1/128 of the span's largest number stays as it is, the rest is rounded to 1/32768 of
 * that at most. Sums of products are whole numbers of 32 bits until scales are applied, so nothing else is rounded.
 */
#pragma once

#include "linear/tile.h"

enum {
    SPAN = 256,
    SPAN_STEPS = SPAN / STEP,
    SUM_COLUMNS = 32,
    SUM_VECTORS = (SPAN / SUM_COLUMNS + LANES - 1) / LANES,
};

/* A span of one row of x. */
typedef struct {
    shorts columns[SPAN_STEPS]; /* in the order in which the format's codes come out of its bytes */
    floats sums[SUM_VECTORS];   /* of 32 columns each, as whole numbers; 0 in the other lanes */
    float scale;                /* no number if one of the columns is not finite */
} Span;

/* The column that has place `place` of a span, in the order of the format `format`. */
typedef int ColumnOf(int format, int place);

INLINE int64_t span_count(int64_t ins)
{
    return (ins + SPAN - 1) / SPAN;
}

/* The factor that brings columns to whole numbers of less than 2^15; its inverse is the scale. */
INLINE float whole_factor(const bfloat16 *x, int64_t columns, float *scale)
{
    uint32_t largest = 0, bits; /* without the sign */
    for (int64_t i = 0; i < columns; i++) {
        uint32_t size = x[i] & 0x7fff;
        largest = size > largest ? size : largest;
    }
    uint32_t exponent = largest >> 7;
    float factor = 0;
    *scale = exponent == 255 ? widen(0x7fc0) : 0;
    if (exponent < 27 || exponent == 255) /* smaller than 2^-100: its inverse may be no float32 */
        return 0;
    bits = (exponent - 14) << 23;
    memcpy(scale, &bits, sizeof bits);
    bits = (268 - exponent) << 23;
    memcpy(&factor, &bits, sizeof bits);
    return factor;
}

/* Lay out up to SPAN columns of x. */
INLINE void pack_span(int format, ColumnOf column_of, const bfloat16 *x, int64_t columns, Span *to)
{
    const float rounder = 12582912; /* 1.5 * 2^23: a sum with it is a whole number, in its low bits */
    int16_t whole[SPAN] = {0}, ordered[SPAN];
    float sums[LANES * SUM_VECTORS] = {0}, factor = whole_factor(x, columns, &to->scale);
    for (int64_t i = 0; i < columns && factor > 0; i++) {
        float sum = widen(x[i]) * factor + rounder;
        uint32_t bits;
        memcpy(&bits, &sum, sizeof bits);
        whole[i] = (int16_t)bits;
        sums[i / SUM_COLUMNS] += whole[i];
    }
    for (int place = 0; place < SPAN; place++)
        ordered[place] = whole[column_of(format, place)];
    memcpy(to->columns, ordered, sizeof ordered);
    memcpy(to->sums, sums, sizeof sums);
}
