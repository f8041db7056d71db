/* Products of weights in int4 (int4_order.h) with a few rows of x. */
#pragma once

#include "base/kernels.h"

/* Bytes of a row of x as `int4_sums` reads it. */
int64_t int4_row_size(int64_t ins);

/* Bring x [ins] to eight bits, as row number `row` of the `rows` that go through a tile together, at `packed`. */
void int4_pack_row(const bfloat16 *x, char *packed, int64_t rows, int64_t row, int64_t ins);

/* Products of the weight rows `first` to `last` with the `rows` rows at `x`, at most MOST_ROWS: LANES sums each, to be
 * added up, to `sums` [last - first, rows]. `codes` and `scales` are those of the whole matrix.
 */
void int4_sums(const char *codes, const void *scales, const char *x, int64_t rows, int64_t ins, int64_t first,
               int64_t last, floats *sums);
