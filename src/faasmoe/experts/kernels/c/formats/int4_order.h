/* The order of weights in int4 and int6, which is that of the arrays in files.
 *
 * A matrix [outs, ins] is two arrays: bytes [outs, groups * group_bytes(bits)], and the rows' own scales, float32 [outs].
 * 32 consecutive weights of a row are a group. It has two bytes: where its zero is, in as small a part of a code that a
 * byte reaches all codes, and its scale, a float of 4 bits of exponent and 4 of mantissa:
 *
 *     weight = row scale * 2^(exponent - 15 - bits) * (1 + mantissa / 16) * (code - zero / 2^(8 - bits))
 *
 * with a code from 0 to 2^bits - 1, so a row's scale is about its largest weight. 16 consecutive groups are a block; the
 * last block of a row may have fewer. A block is the two bytes of each group, and then lines of one 32-bit word of each
 * group. In four lines byte i of the word in line t holds code 8t + i of the group in its lower half, and code 8t + 4 + i
 * in its upper half: in int6 the lowest four bits of each code. There two lines follow, where bits 2k and 2k + 1 of byte
 * i in line t are the highest of code 16t + 4k + i.
 *
 * So a vector has different groups in its lanes, scales are needed once a block, and a row is one stream of bytes.
 */
#pragma once

#include "base/kernels.h"

enum {
    GROUP = 32, /* weights */
    BLOCK = 16, /* groups */
    LINES = 4,  /* of a block, for the lowest four bits of its codes */
    UPPER_LINES = 2,
};

/* Bytes of a group. */
INLINE int64_t group_bytes(int bits)
{
    return 2 + GROUP * bits / 8;
}

/* The float32 of a group's scale has the byte from bit 19 on, and this exponent added. */
#define SCALE_BITS 19
#define SCALE_BIAS(bits) ((127 - 15 - (bits)) << 23)

/* Where in its row a block begins, and how many groups it has. */
typedef struct {
    int64_t at; /* bytes */
    int64_t width;
} Block;

INLINE Block block_of(int bits, int64_t groups, int64_t group)
{
    int64_t first = group / BLOCK * BLOCK, left = groups - first;
    return (Block){group_bytes(bits) * first, left < BLOCK ? left : BLOCK};
}

/* Where in its row the two bytes of a group of a block are. */
INLINE int64_t scale_place(Block block, int64_t lane)
{
    return block.at + 2 * lane;
}

/* Where in its row a group's word in a line of its block is. */
INLINE int64_t word_place(Block block, int line, int64_t lane)
{
    return block.at + 2 * block.width + 4 * (block.width * line + lane);
}
