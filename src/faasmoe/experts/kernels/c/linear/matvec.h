/* Products of a matrix's rows with rows of x. */
#pragma once

#include "linear/packing.h"

enum { CHUNK = 48 }; /* the most weight rows whose results are taken at once, a multiple of MOST_OUTS */

/* What takes the results. */
typedef struct Sink Sink;
struct Sink {
    /* Take `values` [rows, outs], the results from `row` and from `out` on; their rows are `stride` numbers apart. */
    void (*take)(const Sink *sink, const float *values, int64_t stride, int64_t row, int64_t rows, int64_t out,
                 int64_t outs);
};

/* Results of the weight rows `first` to `last` with all rows of x, scales and bias included, in float32.
 *
 * `x`: as `pack_row` lays it out for the matrix's format.
 */
void products(const Matrix *matrix, const char *x, int64_t rows, int64_t ins, int64_t first, int64_t last,
              const Sink *sink);

INLINE float bias_of(const Matrix *matrix, int64_t out)
{
    if (!matrix->bias)
        return 0;
    return wide(matrix->format) ? ((const float *)matrix->bias)[out] : widen(((const bfloat16 *)matrix->bias)[out]);
}

/* Columns `first` to `last` of y [rows, outs]: float32 if the format is `wide`, else bfloat16, rounded once. */
void linear_part(const Matrix *matrix, const char *x, void *y, int64_t rows, int64_t outs, int64_t ins,
                 int64_t first, int64_t last);

/* x [rows, ins] as tiles read it for the format, in this thread's scratch; NULL if there is no memory. */
const char *pack_rows(Format format, const void *x, int64_t rows, int64_t ins);

/* The same to `packed`, rows * row_size(format, ins) bytes. */
void pack_into(Format format, const void *x, int64_t rows, int64_t ins, char *packed);
