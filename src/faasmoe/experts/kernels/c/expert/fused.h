/* A block of experts over any number of rows, in one call. */
#pragma once

#include "base/kernels.h"

typedef struct Block Block;

/* Add each slot's weighted result to its row of float32 `sums` [*, hidden].
 *
 * Slot s of `count` sends row `row[s]` to expert `expert[s]`. `rows` are [*, hidden], in float32 if the weights' format
 * is `wide`, else in bfloat16; `picked` says which of them are meant, or is NULL: all. Every index must be in range.
 * False: no memory.
 */
bool experts_forward(const Block *block, const char *rows, const int32_t *picked, const int32_t *row,
                     const int32_t *expert, const float *weight, int64_t count, float *sums);
