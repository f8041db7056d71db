/* The order in which tiles read rows of x: those of a tile side by side, step by step. */
#pragma once

#include "formats/gguf.h"
#include "formats/grouped.h"
#include "formats/grouped_int4.h"
#include "formats/int4.h"
#include "linear/tile.h"

INLINE int64_t step_count(int64_t ins)
{
    return (ins + STEP - 1) / STEP;
}

/* Bytes of a row of weights. */
INLINE int64_t line_bytes(Format format, int64_t ins)
{
    if (is_gguf(format))
        return gguf_line(format, ins);
    if (grouped(format))
        return grouped_line(format, ins);
    return format == INT4 || format == GROUPED_INT4 ? ins / 2 : ins * weight_bytes(format);
}

/* Bytes from one row of x, if it were alone, to the next. */
INLINE int64_t row_size(Format format, int64_t ins)
{
    if (is_gguf(format))
        return gguf_row_size(ins);
    if (format == GROUPED_INT4)
        return grouped_int4_row_size(ins);
    if (grouped(format))
        return grouped_row_size(format, ins);
    return format == INT4 ? int4_row_size(ins) : step_count(ins) * STEP * packed_bytes(format);
}

/* Bytes of so many rows of x, behind which their scales lie if the weights are in eight bits. */
INLINE int64_t packed_size(Format format, int64_t rows, int64_t ins)
{
    return rows * (row_size(format, ins) + (format == INT8 ? (int64_t)sizeof(float) : 0));
}

/* The scales of all rows of x: row i is scale[i] times its whole numbers. */
INLINE float *row_scales(const char *packed, int64_t rows, int64_t ins)
{
    return (float *)(packed + rows * row_size(INT8, ins));
}

/* The number of rows that go through a tile together from `row` on, a multiple of MOST_ROWS. */
INLINE int64_t group_rows(int64_t rows, int64_t row)
{
    return rows - row < MOST_ROWS ? rows - row : MOST_ROWS;
}

/* Bytes of so many numbers of x, a bias or y, as callers have them. */
INLINE int64_t numbers_size(Format format, int64_t count)
{
    return count * (wide(format) ? (int64_t)sizeof(float) : (int64_t)sizeof(bfloat16));
}

/* Lay out x [ins], in float32 if the format is `wide`, else bfloat16, as row number `row` of so many in `packed`. */
void pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins);
