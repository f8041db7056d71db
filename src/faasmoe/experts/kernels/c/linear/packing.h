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

/* Rows that go through a tile together. */
typedef struct {
    int64_t first, rows;
} RowGroup;

/* The group of row `row`. Groups are as few as can be, and differ by one row: one row alone takes as long as four. */
INLINE RowGroup row_group(int64_t rows, int64_t row)
{
    int64_t groups = (rows + MOST_ROWS - 1) / MOST_ROWS, least = rows / groups, larger = rows % groups * (least + 1);
    if (row < larger)
        return (RowGroup){row - row % (least + 1), least + 1};
    return (RowGroup){row - (row - larger) % least, least};
}

/* Lay out x [ins], in float32 if the format is `wide`, else bfloat16, as row number `row` of so many in `packed`. */
INLINE void pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    int64_t first = row - row % MOST_ROWS;
    FORMATS[format].pack_row(format, x, packed + row_size(format, ins) * first, group_rows(rows, first), row - first,
                             ins);
}
