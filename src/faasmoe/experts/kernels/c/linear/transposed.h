/* Products of matrices that lie transposed with rows of x. */
#pragma once

#include "linear/matvec.h"

/* As `products`, of all outs, with weights [ins, outs] of floats and x [rows, ins] in float32.
 *
 * A result is one sum, in the order of columns, so a row's has the same bits whatever rows come with it.
 */
void transposed_products(const Matrix *matrix, const float *x, int64_t rows, int64_t ins, int64_t outs,
                         const Sink *sink);
