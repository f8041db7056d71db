/* Products of weights that have a scale for each group of consecutive ones of a row, with a few rows of x. */
#pragma once

#include "formats/table.h"

/* Where the scales of a matrix lie. `Matrix.scales` of a format by group has the address of it (kernels/scales.py). */
typedef struct {
    const char *at;
    int64_t line;     /* bytes from one row of them to the next */
    int64_t outs;     /* weight rows that share a row of them */
    int64_t constant; /* whether a row has a single one, of format FP8 */
    double factor;    /* of all sums: a float32 */
} Scales;

FORMAT_FUNCTIONS(grouped); /* a row of weights is its codes alone */
