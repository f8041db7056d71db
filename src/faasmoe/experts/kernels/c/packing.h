/* The order in which tiles read rows of x: those of a tile side by side, step by step. */
#pragma once

#include "tile.h"

INLINE int64_t step_count(int64_t ins)
{
    return (ins + STEP - 1) / STEP;
}

/* Bytes of so many rows of x. */
INLINE int64_t packed_size(Format format, int64_t rows, int64_t ins)
{
    return rows * step_count(ins) * STEP * packed_bytes(format);
}

/* The number of rows that go through a tile together from `row` on, a multiple of MOST_ROWS. */
INLINE int64_t group_rows(int64_t rows, int64_t row)
{
    return rows - row < MOST_ROWS ? rows - row : MOST_ROWS;
}

/* Lay out x [ins] as row number `row` of so many in `packed`. */
void pack_row(Format format, const bfloat16 *x, char *packed, int64_t rows, int64_t row, int64_t ins);
