/* Attention of one new token a sequence over its keys and values, which are read once.
 *
 * Positions come in blocks. After each, a head has the sum of values so far, weighted relative to the largest score so
 * far (online softmax: Milakov and Gimelshein 2018). What a sequence gets depends on nothing but its own numbers.
 */
#include "dense/steps.h"

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

struct attention {
    struct rows query, key, value;
    void *out;          /* [sequences, heads, value_dim] */
    const float *sinks; /* [heads], or none */
    int64_t heads, kv_heads, dim, value_dim;
    int64_t window;       /* positions that are seen; 0: all */
    int64_t wide;         /* the dtype of everything is float32, else bfloat16 */
    float scale, softcap; /* softcap 0: none */
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
INLINE void score(const struct attention *task, const float *query, const void *keys, int64_t count, bool cached,
                  bool wide, float *scores)
{
    int64_t dim = task->dim, i = 0;
    if (cached)
        for (; i + ROWS <= count; i += ROWS)
            products(query, at(keys, i * dim, wide), dim, ROWS, wide, scores + i);
    for (; i < count; i++)
        products(query, at(keys, i * dim, wide), dim, 1, wide, scores + i);
    if (task->softcap != 0)
        for (i = 0; i < count; i++)
            scores[i] = task->softcap * tanhf(scores[i] / task->softcap);
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
INLINE void add_pairs(float *sums, const float *weights, const void *values, int64_t column, int64_t value_dim,
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
            pair value = load(values, i * value_dim + column + p * PAIR, wide);
            its[p].a = multiply_add(weight, value.a, its[p].a);
            its[p].b = multiply_add(weight, value.b, its[p].b);
        }
    }
    for (int64_t p = 0; p < pairs; p++)
        memcpy(sums + column + p * PAIR, &its[p], sizeof its[p]);
}

INLINE void add(float *sums, const float *weights, const void *values, int64_t value_dim, int64_t count, bool wide,
                float factor)
{
    int64_t column = 0;
    for (; column + PAIRS * PAIR <= value_dim; column += PAIRS * PAIR)
        add_pairs(sums, weights, values, column, value_dim, count, PAIRS, wide, factor);
    for (; column + PAIR <= value_dim; column += PAIR)
        add_pairs(sums, weights, values, column, value_dim, count, 1, wide, factor);
    for (; column < value_dim; column++) {
        sums[column] *= factor;
        for (int64_t i = 0; i < count; i++)
            sums[column] += weights[i] * get(values, i * value_dim + column, wide);
    }
}

/* Heads `first` to `first + count` of a sequence, which share the keys and values. */
INLINE void attend_heads(const struct attention *task, int64_t sequence, int64_t first, int64_t count,
                         const void *keys, const void *values, int64_t length, bool wide)
{
    struct head heads[HEADS];
    float scores[BLOCK];
    int64_t dim = task->dim, value_dim = task->value_dim;
    for (int64_t h = 0; h < count; h++) {
        widen_query(row(&task->query, sequence, first + h, wide), dim, task->scale, wide, heads[h].query);
        memset(heads[h].sums, 0, value_dim * sizeof(float));
        heads[h].most = task->sinks ? task->sinks[first + h] : -INFINITY;
        heads[h].total = task->sinks ? 1 : 0;
    }
    int64_t start = task->window && length > task->window ? length - task->window : 0;
    for (; start < length; start += BLOCK) {
        int64_t some = length - start < BLOCK ? length - start : BLOCK;
        for (int64_t h = 0; h < count; h++) {
            score(task, heads[h].query, at(keys, start * dim, wide), some, h > 0, wide, scores);
            float factor = weigh(&heads[h], scores, some);
            add(heads[h].sums, scores, at(values, start * value_dim, wide), value_dim, some, wide, factor);
        }
    }
    for (int64_t h = 0; h < count; h++) {
        int64_t row = sequence * task->heads + first + h;
        narrow_sums(heads[h].sums, value_dim, heads[h].total, wide, at(task->out, row * value_dim, wide));
    }
}

/* Stores a sequence's new keys and values, and attends to all. */
INLINE void attend_sequence(const struct attention *task, int64_t sequence, const struct place *place, bool wide)
{
    int64_t group = task->heads / task->kv_heads, dim = task->dim, value_dim = task->value_dim;
    int64_t new = place->length - 1, size = wide ? 4 : 2;
    for (int64_t head = 0; head < task->kv_heads; head++) {
        void *keys = at(place->keys, head * place->capacity * dim, wide);
        void *values = at(place->values, head * place->capacity * value_dim, wide);
        memcpy(at(keys, new * dim, wide), row(&task->key, sequence, head, wide), size * dim);
        memcpy(at(values, new * value_dim, wide), row(&task->value, sequence, head, wide), size * value_dim);
        for (int64_t h = 0; h < group; h += HEADS)
            attend_heads(task, sequence, head * group + h, group - h < HEADS ? group - h : HEADS, keys, values,
                         place->length, wide);
    }
}

/* Stores the new keys and values of `count` sequences at the ends of their caches, and attends to all of them. */
EXPORT void attend(const struct attention *task, const struct place *places, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        if (task->wide)
            attend_sequence(task, n, &places[n], true);
        else
            attend_sequence(task, n, &places[n], false);
}
