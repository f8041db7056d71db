/* Lays out rows of x for the tiles. */
#include "packing.h"

static void pack_step(Format format, const bfloat16 *x, char *to)
{
    if (packed_bytes(format) == sizeof *x) {
        memcpy(to, x, STEP * sizeof *x);
        return;
    }
    float wide[STEP];
    if (format == BFLOAT16) /* the even columns, then the odd ones */
        for (int lane = 0; lane < LANES; lane++) {
            wide[lane] = widen(x[2 * lane]);
            wide[LANES + lane] = widen(x[2 * lane + 1]);
        }
    else
        for (int column = 0; column < STEP; column++)
            wide[column] = widen(x[column]);
    memcpy(to, wide, sizeof wide);
}

void pack_row(Format format, const bfloat16 *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    int64_t first = row - row % MOST_ROWS, count = group_rows(rows, first);
    int64_t step_bytes = STEP * packed_bytes(format), whole = ins / STEP;
    char *to = packed + step_bytes * (first * step_count(ins) + row - first);
    for (int64_t step = 0; step < whole; step++)
        pack_step(format, x + STEP * step, to + step_bytes * count * step);
    if (ins % STEP) {
        bfloat16 rest[STEP] = {0};
        memcpy(rest, x + STEP * whole, sizeof *x * (ins % STEP));
        pack_step(format, rest, to + step_bytes * count * whole);
    }
}
