/* Rows of x in whole numbers, for weights whose codes are whole numbers, too.
 *
 * 256 consecutive columns are a span. They have sixteen bits and one scale, a power of two: what has the eight bits of
 * bfloat16 and is no smaller than 1/128 of the span's largest number stays as it is, the rest is rounded to 1/32768 of
 * that at most. Sums of products are whole numbers of 32 bits until scales are applied, so nothing else is rounded.
 */
#pragma once

#include "formats/table.h"

enum {
    SPAN = 256,
    SPAN_STEPS = SPAN / STEP,
    X_BYTES = 24 << 10,   /* of the rows of x that stay in the first cache while weights pass */
    WEIGHTS_AHEAD = 1024, /* bytes from the weights that are read to those that are fetched */
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

/* All rows of a matrix. */
typedef struct {
    const char *codes;
    int64_t line;       /* bytes of a row */
    const void *scales; /* what the format has beside its codes */
} Weights;

/* Add what row `out` of the weights gives in up to SPAN columns, from `column` on, to `sums` [rows]. */
typedef void AddSpan(int kind, int rows, const Weights *weights, int64_t out, int64_t column, int64_t columns,
                     const Span *x, floats *sums);

/* Bytes of a row of x. */
INLINE int64_t spans_size(int64_t ins)
{
    return (ins + SPAN - 1) / SPAN * (int64_t)sizeof(Span);
}

INLINE floats to_floats(ints whole)
{
    return __builtin_convertvector(whole, floats);
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
    int16_t whole[SPAN] = {0}, ordered[SPAN];
    float sums[LANES * SUM_VECTORS] = {0}, factor = whole_factor(x, columns, &to->scale);
    for (int64_t i = 0; i < columns && factor > 0; i++) {
        whole[i] = (int16_t)nearest_whole(widen(x[i]) * factor);
        sums[i / SUM_COLUMNS] += whole[i];
    }
    for (int place = 0; place < SPAN; place++)
        ordered[place] = whole[column_of(format, place)];
    memcpy(to->columns, ordered, sizeof ordered);
    memcpy(to->sums, sums, sizeof sums);
}

/* Lay out x [ins] as row number `row` of the `rows` that go through a tile together, at `packed`. */
INLINE void pack_spans(int format, ColumnOf column_of, const bfloat16 *x, char *packed, int64_t rows, int64_t row,
                       int64_t ins)
{
    Span *to = (Span *)packed + row; /* rows of a tile alternate span by span */
    for (; ins > 0; ins -= SPAN, x += SPAN, to += rows)
        pack_span(format, column_of, x, ins < SPAN ? ins : SPAN, to);
}

/* Sums of the weight rows `first` to `last`, one at a time: as many spans of each follow each other as the cache takes.
 */
INLINE void span_tiles(int kind, int rows, AddSpan add, const Weights *weights, const Span *x, int64_t ins,
                       int64_t first, int64_t last, floats *sums)
{
    const int64_t block = SPAN * (X_BYTES / (int64_t)sizeof(Span) / rows);
    for (int64_t column = 0; column < ins; column += block, x += block / SPAN * rows) {
        int64_t end = column + block < ins ? column + block : ins;
        for (int64_t out = first; out < last; out++) {
            floats running[MOST_ROWS], *its = sums + rows * (out - first);
            for (int row = 0; row < rows; row++)
                running[row] = column ? its[row] : (floats){0};
            for (int64_t at = column; at < end; at += SPAN) {
                if (rows > 1)
                    __builtin_prefetch(weights->codes + weights->line * out + weights->line * at / ins + WEIGHTS_AHEAD);
                add(kind, rows, weights, out, at, end - at < SPAN ? end - at : SPAN, x + (at - column) / SPAN * rows,
                    running);
            }
            for (int row = 0; row < rows; row++)
                its[row] = running[row];
        }
    }
}

typedef void SpanTiles(const Weights *weights, const Span *x, int64_t ins, int64_t first, int64_t last, floats *sums);

/* A function for each number of rows: of a kind, with the file's `add_span`. */
#define SPAN_TILES(kind, rows)                                                                                         \
    static void tiles_##kind##_##rows(const Weights *weights, const Span *x, int64_t ins, int64_t first, int64_t last, \
                                      floats *sums)                                                                    \
    {                                                                                                                  \
        span_tiles(kind, rows, add_span, weights, x, ins, first, last, sums);                                          \
    }
#define SPAN_TILES_NAME(kind, rows) tiles_##kind##_##rows,
