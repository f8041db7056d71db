/* What kernels of attention share: heads of queries over blocks of positions.
 *
 * After each block a head has the sum of values so far, weighted relative to the largest score so far (online softmax:
 * Milakov and Gimelshein 2018).
 */
#pragma once
#include <math.h>

#include "base/vectors.h"

#define BLOCK 128         /* positions whose keys stay in the nearest cache for all heads that share them */
#define HEADS 8           /* of queries that are computed side by side */
#define MOST_DIM 1024     /* of a head: decode_kernel.py */
#define ROWS 4            /* of keys that are multiplied side by side, once they are in a cache */
#define PAIRS 4           /* of sums that are added to side by side */
#define LEAST_POWER -87.f /* e to the power of it is just above the smallest normal float32 */

struct place { /* of a sequence's cache: decode_kernel.py's Place */
    void *keys, *values; /* [kv_heads, capacity, dim], [kv_heads, capacity, value_dim] */
    int64_t capacity, length;
};

struct rows { /* of the sequences and their heads */
    const void *at;
    int64_t between_sequences, between_heads; /* in numbers */
};

INLINE const void *row(const struct rows *rows, int64_t sequence, int64_t head, bool wide)
{
    return at(rows->at, sequence * rows->between_sequences + head * rows->between_heads, wide);
}

struct head {
    float query[MOST_DIM]; /* in the order of `load` */
    float sums[MOST_DIM];  /* in this order, too */
    float most, total;     /* the largest score, and the sum of weights relative to it */
};

/* e to the power of x <= 0 to 2e-7: 2 to a whole power, and Taylor's series for the rest. */
INLINE floats exponential(floats x)
{
    x = choose(x < LEAST_POWER, every(LEAST_POWER), x);
    ints whole = __builtin_convertvector(x * 1.44269504f - 0.5f, ints); /* towards 0: the nearest */
    floats power = __builtin_convertvector(whole, floats);
    floats y = multiply_add(power, every(-0.693145752f), x); /* ln 2 in two parts */
    y = multiply_add(power, every(-1.42860677e-6f), y);
    floats series = every(1.f / 720);
    series = multiply_add(series, y, every(1.f / 120));
    series = multiply_add(series, y, every(1.f / 24));
    series = multiply_add(series, y, every(1.f / 6));
    series = multiply_add(series, y, every(0.5f));
    series = multiply_add(series, y, every(1.f));
    series = multiply_add(series, y, every(1.f));
    return series * (floats)((whole + 127) << 23);
}

/* A query, scaled, in the order of `load`. */
INLINE void widen_query(const void *query, int64_t dim, float scale, bool wide, float *to)
{
    int64_t i = 0;
    for (; i + PAIR <= dim; i += PAIR) {
        pair its = load(query, i, wide);
        its.a *= scale;
        its.b *= scale;
        store(to, i, its, true);
    }
    for (; i < dim; i++)
        to[i] = get(query, i, wide) * scale;
}

/* Sums, each divided by `total`, in the order of an array. */
INLINE void narrow_sums(const float *sums, int64_t dim, float total, bool wide, void *to)
{
    int64_t i = 0;
    for (; i + PAIR <= dim; i += PAIR) {
        pair its = load(sums, i, true);
        its.a /= total;
        its.b /= total;
        store(to, i, its, wide);
    }
    for (; i < dim; i++)
        set(to, i, sums[i] / total, wide);
}

/* The products of a query with `ROWS` rows of keys or with one. */
INLINE void products(const float *query, const void *keys, int64_t dim, int64_t rows, bool wide, float *scores)
{
    floats sums[2 * ROWS] = {0};
    int64_t i = 0;
    for (; i + PAIR <= dim; i += PAIR) {
        pair its = load(query, i, true);
        for (int64_t row = 0; row < rows; row++) {
            pair key = load(keys, row * dim + i, wide);
            sums[2 * row] = multiply_add(its.a, key.a, sums[2 * row]);
            sums[2 * row + 1] = multiply_add(its.b, key.b, sums[2 * row + 1]);
        }
    }
    for (int64_t row = 0; row < rows; row++) {
        scores[row] = sum(sums[2 * row] + sums[2 * row + 1]);
        for (int64_t rest = i; rest < dim; rest++)
            scores[row] += query[rest] * get(keys, row * dim + rest, wide);
    }
}

/* The scores of `count` positions, and after them -infinity up to a whole vector. From memory (not `cached`) rows are
 * read one after the other, which the processor can foresee.
 */
INLINE void score(const float *query, const void *keys, int64_t dim, float softcap, int64_t count, bool cached,
                  bool wide, float *scores)
{
    int64_t i = 0;
    if (cached)
        for (; i + ROWS <= count; i += ROWS)
            products(query, at(keys, i * dim, wide), dim, ROWS, wide, scores + i);
    for (; i < count; i++)
        products(query, at(keys, i * dim, wide), dim, 1, wide, scores + i);
    if (softcap != 0)
        for (i = 0; i < count; i++)
            scores[i] = softcap * tanhf(scores[i] / softcap);
    for (; i % LANES; i++)
        scores[i] = -INFINITY;
}

/* Turns the scores of a block into weights. Returns by what the sums so far have to be multiplied. */
INLINE float weigh(struct head *head, float *scores, int64_t count)
{
    float most = head->most;
    floats largest = every(most), total = {0}, some;
    for (int64_t i = 0; i < count; i += LANES) {
        memcpy(&some, scores + i, sizeof some);
        largest = choose(some > largest, some, largest);
    }
    for (int64_t i = 0; i < LANES; i++)
        most = largest[i] > most ? largest[i] : most;
    for (int64_t i = 0; i < count; i += LANES) {
        memcpy(&some, scores + i, sizeof some);
        some = exponential(some - most);
        memcpy(scores + i, &some, sizeof some);
        total += some;
    }
    float factor = most > head->most ? exponential(every(head->most - most))[0] : 1;
    head->total = head->total * factor + sum(total);
    head->most = most;
    return factor;
}

/* Adds so many pairs of columns of values, weighted, to their sums, which are multiplied by `factor` first. */
INLINE void add_pairs(float *sums, const float *weights, const void *values, int64_t column, int64_t apart,
                      int64_t count, int64_t pairs, bool wide, float factor)
{
    pair its[PAIRS];
    for (int64_t p = 0; p < pairs; p++) {
        its[p] = load(sums, column + p * PAIR, true);
        its[p].a *= factor;
        its[p].b *= factor;
    }
    for (int64_t i = 0; i < count; i++) {
        floats weight = every(weights[i]);
        for (int64_t p = 0; p < pairs; p++) {
            pair value = load(values, i * apart + column + p * PAIR, wide);
            its[p].a = multiply_add(weight, value.a, its[p].a);
            its[p].b = multiply_add(weight, value.b, its[p].b);
        }
    }
    for (int64_t p = 0; p < pairs; p++)
        memcpy(sums + column + p * PAIR, &its[p], sizeof its[p]);
}

/* Rows of values are `apart` numbers apart. */
INLINE void add(float *sums, const float *weights, const void *values, int64_t value_dim, int64_t apart,
                int64_t count, bool wide, float factor)
{
    int64_t column = 0;
    for (; column + PAIRS * PAIR <= value_dim; column += PAIRS * PAIR)
        add_pairs(sums, weights, values, column, apart, count, PAIRS, wide, factor);
    for (; column + PAIR <= value_dim; column += PAIR)
        add_pairs(sums, weights, values, column, apart, count, 1, wide, factor);
    for (; column < value_dim; column++) {
        sums[column] *= factor;
        for (int64_t i = 0; i < count; i++)
            sums[column] += weights[i] * get(values, i * apart + column, wide);
    }
}

/* The attention of heads to the positions of a cache that they share: `sums`, which are not yet divided by `total`.
 *
 * Of a row of keys `dim` numbers are read, of a row of values, which are `apart` numbers apart, `value_dim`.
 */
INLINE void attend_blocks(struct head *heads, int64_t count, const void *keys, int64_t dim, const void *values,
                          int64_t value_dim, int64_t apart, int64_t start, int64_t length, float softcap, bool wide)
{
    float scores[BLOCK];
    for (; start < length; start += BLOCK) {
        int64_t some = length - start < BLOCK ? length - start : BLOCK;
        for (int64_t h = 0; h < count; h++) {
            score(heads[h].query, at(keys, start * dim, wide), dim, softcap, some, h > 0, wide, scores);
            float factor = weigh(&heads[h], scores, some);
            add(heads[h].sums, scores, at(values, start * apart, wide), value_dim, apart, some, wide, factor);
        }
    }
}

INLINE void begin_head(struct head *head, int64_t value_dim, const float *sink)
{
    memset(head->sums, 0, value_dim * sizeof(float));
    head->most = sink ? *sink : -INFINITY;
    head->total = sink ? 1 : 0;
}

/* The first position that the last of `length` sees. */
INLINE int64_t first_seen(int64_t window, int64_t length)
{
    return window && length > window ? length - window : 0;
}
