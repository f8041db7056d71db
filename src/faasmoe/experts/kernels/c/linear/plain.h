/* Weights whose rows are numbers alone, floats or in eight bits: those that the tiles of tile.h read. */
#pragma once

#include "formats/table.h"

FORMAT_FUNCTIONS(plain); /* `plain_sums` is in matvec.c, where the tiles are, the others in plain.c */

INLINE int64_t step_count(int64_t ins)
{
    return (ins + STEP - 1) / STEP;
}

/* The scales of so many rows of x in eight bits, which lie behind them: row i is scale[i] times its whole numbers. */
INLINE float *row_scales(const char *packed, int64_t rows, int64_t ins)
{
    return (float *)(packed + rows * step_count(ins) * STEP * packed_bytes(INT8));
}

/* Bytes of so many numbers of x, a bias or y, as callers have them. */
INLINE int64_t numbers_size(Format format, int64_t count)
{
    return count * (wide(format) ? (int64_t)sizeof(float) : (int64_t)sizeof(bfloat16));
}
