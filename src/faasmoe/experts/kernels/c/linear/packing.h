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

/* The group of row `row`: MOST_ROWS rows, as many as are left in the last one.
 *
 * If these are few, the last two groups are of one size: a row alone takes as long as four.
 */
INLINE RowGroup row_group(int64_t rows, int64_t row)
{
    int64_t first = row - row % MOST_ROWS, rest = rows % MOST_ROWS;
    int64_t last_two = rows - rest - MOST_ROWS, half = (MOST_ROWS + rest + 1) / 2;
    if (rest == 0 || rest >= MOST_ROWS / 2 || last_two < 0 || row < last_two)
        return (RowGroup){first, rows - first < MOST_ROWS ? rows - first : MOST_ROWS};
    return row < last_two + half ? (RowGroup){last_two, half}
                                 : (RowGroup){last_two + half, MOST_ROWS + rest - half};
}

/* Lay out x [ins], in float32 if the format is `wide`, else bfloat16, as row number `row` of so many in `packed`. */
INLINE void pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    RowGroup group = row_group(rows, row);
    FORMATS[format].pack_row(format, x, packed + row_size(format, ins) * group.first, group.rows, row - group.first, ins);
}
