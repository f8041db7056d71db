/* The order of weights in int4, which is that of the arrays in files.
 *
 * A matrix is [outs, ins], in two arrays: the codes, half a byte each, and the scales, bfloat16 [outs, groups]. 32
 * consecutive weights of a row are a group: each is (code - 8) * scale, with a code from 0 to 15. 16 consecutive groups
 * are a block; the last block of a row may have fewer. A block's codes are four lines of one 32-bit word a group: byte i
 * of the word in line t holds code 8t + i of the group in its lower half, and code 8t + 4 + i in its upper half. So a
 * vector has different groups in its lanes, and scales are needed once a block.
 */
#pragma once

#include "kernels.h"

#define GROUP 32 /* weights */
#define BLOCK 16 /* groups */
#define LINES 4  /* words of a group */
#define ZERO 8   /* the code of a weight of 0 */
#define ROUNDER 12582912.0f /* 1.5 * 2^23: a small number that it is added to is rounded to nearest, ties to even, and
                               the sum's lowest bits are that whole number */

/* Where the words of one group lie in its row's codes, in bytes. */
typedef struct {
    int64_t first; /* that of line 0 */
    int64_t line;  /* from one line to the next */
} word_places;

INLINE word_places places_of(int64_t groups, int64_t group)
{
    int64_t left = groups - group / BLOCK * BLOCK;
    int64_t width = left < BLOCK ? left : BLOCK;
    return (word_places){4 * BLOCK * LINES * (group / BLOCK) + 4 * (group % BLOCK), 4 * width};
}
