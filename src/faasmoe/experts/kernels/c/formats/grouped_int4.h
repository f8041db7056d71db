/* Products of weights in four bits that have a scale and a zero by group, float32 and a byte, with a few rows of x. */
#pragma once

#include "formats/table.h"

/* What a matrix has beside its codes. `Matrix.scales` is the address of one (kernels/scales.py). */
typedef struct {
    const char *scales; /* float32 [outs, ins / group] */
    const char *zeros;  /* uint8 [outs, ins / group] */
    int64_t group;      /* columns: 32, 64 or 128 */
} Int4Groups;

/* Codes are two a byte, that of the even column in the lower half; ins is a multiple of the group. */
FORMAT_FUNCTIONS(grouped_int4);
