/* The order in which tiles read rows of x: groups of rows one after the other, as each format lays them out. */
#pragma once

#include "formats/table.h"
#include "linear/plain.h"

/* Bytes of a row of weights. */
INLINE int64_t line_bytes(Format format, int64_t ins)
{
    return FORMATS[format].line(format, ins);
}

/* Bytes from one row of x, if it were alone, to the next. */
INLINE int64_t row_size(Format format, int64_t ins)
{
    return FORMATS[format].row_size(format, ins);
}

/* The number of rows that go through a tile together from `row` on, a multiple of MOST_ROWS. */
INLINE int64_t group_rows(int64_t rows, int64_t row)
{
    return rows - row < MOST_ROWS ? rows - row : MOST_ROWS;
}

/* Lay out x [ins], in float32 if the format is `wide`, else bfloat16, as row number `row` of so many in `packed`. */
INLINE void pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    int64_t first = row - row % MOST_ROWS;
    FORMATS[format].pack_row(format, x, packed + row_size(format, ins) * first, group_rows(rows, first), row - first,
                             ins);
}
