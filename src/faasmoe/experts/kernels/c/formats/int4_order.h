/* The order of weights in int4, which is that of the arrays in files.
 *
 * A matrix [outs, ins] is in two arrays of bytes: codes [outs, ins / 2] and scales [outs, 4 + 2 * groups]. 32
 * consecutive weights of a row are a group. A row of scales is the row's own scale, float32, and two bytes for each
 * group: where its zero is, in sixteenths of a code, and its scale, a float of 4 bits of exponent and 4 of mantissa:
 *
 *     weight = row scale * 2^(exponent - 15) * (1 + mantissa / 16) * (code - zero / 16), with a code from 0 to 15
 *
 * 16 consecutive groups are a block; the last block of a row may have fewer. A block's codes are four lines of one
 * 32-bit word a group: byte i of the word in line t holds code 8t + i of the group in its lower half, and code
 * 8t + 4 + i in its upper half. So a vector has different groups in its lanes, and scales are needed once a block.
 */
#pragma once

#include "base/kernels.h"

enum {
    GROUP = 32,     /* weights */
    BLOCK = 16,     /* groups */
    LINES = 4,      /* words of a group */
    ROW_SCALE = 4,  /* bytes */
    SIXTEENTHS = 16 /* of a code */
};

INLINE int64_t scales_size(int64_t groups)
{
    return ROW_SCALE + 2 * groups;
}

/* The float32 of a group's scale has the byte from bit 19 on, and this exponent added. */
#define SCALE_BITS 19
#define SCALE_BIAS ((127 - 15) << 23)

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
