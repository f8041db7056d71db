/* Products of weights in four bits that have a scale and a zero by group, float32 and a byte, with a few rows of x. */
#pragma once

#include "linear/tile.h"

/* What a matrix has beside its codes. `Matrix.scales` is the address of one (kernels/scales.py). */
typedef struct {
    const char *scales; /* float32 [outs, ins / group] */
    const char *zeros;  /* uint8 [outs, ins / group] */
    int64_t group;      /* columns: 32, 64 or 128 */
} Int4Groups;

/* Bytes of a row of x as `grouped_int4_sums` reads it. */
int64_t grouped_int4_row_size(int64_t ins);

/* Lay out x [ins] as row number `row` of the `rows` that go through a tile together, at `packed`. */
void grouped_int4_pack_row(const bfloat16 *x, char *packed, int64_t rows, int64_t row, int64_t ins);

/* Products of the weight rows `first` to `last` with the `rows` rows at `x`, at most MOST_ROWS: LANES sums each, to be
 * added up, to `sums` [last - first, rows]. `codes` and `scales` are those of the whole matrix: codes two a byte, that
 * of the even column in the lower half; ins is a multiple of the group.
 */
void grouped_int4_sums(const char *codes, const Int4Groups *scales, const char *x, int64_t rows, int64_t ins,
                       int64_t first, int64_t last, floats *sums);
