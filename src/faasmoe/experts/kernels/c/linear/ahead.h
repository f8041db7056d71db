/* Reading ahead: the weights of the next group of layers come into the caches while nothing is multiplied. */
#pragma once

#include "linear/matvec.h"

/* A row of `Layers.table`. */
typedef struct {
    Matrix matrix;
    int64_t outs, before; /* the outs of the layers before */
    int64_t first_piece, piece; /* the number of the layer's first piece; outs of a piece */
} Layer;

/* Layers that take the same rows of x: layers.py's `_group`. */
typedef struct Group {
    const Layer *layers;
    int64_t count, pieces, ins;
    const struct Group *next; /* the group to read ahead when this one has run, or NULL */
} Group;

enum {
    RANGES = 4,             /* layers of a group that are read ahead */
    AHEAD_BYTES = 16 << 20, /* of them at most: half of a server's last cache */
    BLOCK = 4096,           /* bytes that a helper reads before it leaves as many to each of the others */
};

/* What is left to read. Addresses, not a group, which may be gone before they have been read. */
typedef struct {
    const char *at[RANGES], *end[RANGES];
    int64_t range, skipped; /* the current one; bytes between a helper's blocks */
} Ahead;

/* `group` may be NULL. */
INLINE Ahead ahead_of(const Group *group)
{
    Ahead ahead = {0};
    int64_t left = AHEAD_BYTES;
    for (int64_t i = 0; group && i < group->count && i < RANGES; i++) {
        const Matrix *matrix = &group->layers[i].matrix;
        int64_t bytes = line_bytes(matrix->format, group->ins) * group->layers[i].outs;
        bytes = bytes < left ? bytes : left;
        left -= bytes;
        ahead.at[i] = matrix->weights;
        ahead.end[i] = matrix->weights + bytes;
    }
    return ahead;
}

/* The share of one of so many helpers. */
INLINE Ahead share_of(const Ahead *all, int64_t number, int64_t helpers)
{
    Ahead ahead = *all;
    for (int64_t i = 0; i < RANGES; i++)
        ahead.at[i] = (const char *)((uintptr_t)ahead.at[i] / BLOCK * BLOCK) + BLOCK * number;
    ahead.skipped = BLOCK * (helpers - 1);
    return ahead;
}

/* Fetches one line. False if none is left. An address that is no longer mapped does no harm. */
INLINE bool read_ahead(Ahead *ahead)
{
    while (ahead->range < RANGES && ahead->at[ahead->range] >= ahead->end[ahead->range])
        ahead->range++;
    if (ahead->range == RANGES)
        return false;
    const char **at = &ahead->at[ahead->range];
    __builtin_prefetch(*at, 0, 2);
    *at += CACHE_LINE;
    if ((uintptr_t)*at % BLOCK == 0)
        *at += ahead->skipped;
    return true;
}
