/* Products of weights that have a scale for each group of consecutive ones of a row, with a few rows of x. */
#pragma once

#include "linear/tile.h"

/* Where the scales of a matrix lie. `Matrix.scales` of a format by group has the address of it (kernels/scales.py). */
typedef struct {
    const char *at;
    int64_t line;     /* bytes from one row of them to the next */
    int64_t outs;     /* weight rows that share a row of them */
    int64_t constant; /* whether a row has a single one, of format FP8 */
    double factor;    /* of all sums: a float32 */
} Scales;

/* Whether weights are of a format by group: a row is its codes alone, and `grouped_sums` has their products. */
INLINE bool grouped(Format format)
{
    return format >= MXFP4;
}

/* Bytes of a row of weights. */
int64_t grouped_line(Format format, int64_t ins);

/* Bytes of a row of x as `grouped_sums` reads it. */
int64_t grouped_row_size(Format format, int64_t ins);

/* Lay out x [ins] as row number `row` of the `rows` that go through a tile together, at `packed`. */
void grouped_pack_row(Format format, const bfloat16 *x, char *packed, int64_t rows, int64_t row, int64_t ins);

/* Products of the weight rows `first` to `last` with the `rows` rows at `x`, at most MOST_ROWS: LANES sums each, to be
 * added up, to `sums` [last - first, rows]. `codes` and `scales` are those of the whole matrix.
 */
void grouped_sums(Format format, const char *codes, const Scales *scales, const char *x, int64_t rows,
                  int64_t ins, int64_t first, int64_t last, floats *sums);
