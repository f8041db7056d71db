/* Products of weights in GGUF's formats, read as they lie in files, with a few rows of x. */
#pragma once

#include "linear/tile.h"

INLINE bool is_gguf(Format format)
{
    return format >= Q8_0 && format <= Q6_K;
}

/* Bytes of a row of weights. */
int64_t gguf_line(Format format, int64_t ins);

/* Bytes of a row of x as `gguf_sums` reads it. */
int64_t gguf_row_size(int64_t ins);

/* Lay out x [ins] as row number `row` of the `rows` that go through a tile together, at `packed`. */
void gguf_pack_row(Format format, const bfloat16 *x, char *packed, int64_t rows, int64_t row, int64_t ins);

/* Products of the weight rows `first` to `last` with the `rows` rows at `x`, at most MOST_ROWS: LANES sums each, to be
 * added up, to `sums` [last - first, rows]. `weights` are those of the whole matrix.
 */
void gguf_sums(Format format, const char *weights, const char *x, int64_t rows, int64_t ins, int64_t first,
               int64_t last, floats *sums);
