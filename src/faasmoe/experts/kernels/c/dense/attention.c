/* Attention of one new token a sequence over its keys and values, which are read once.
 *
 * What a sequence gets depends on nothing but its own numbers.
 */
#include "dense/heads.h"
#include "dense/steps.h"

struct attention {
    struct rows query, key, value;
    void *out;          /* [sequences, heads, value_dim] */
    const float *sinks; /* [heads], or none */
    int64_t heads, kv_heads, dim, value_dim;
    int64_t window;       /* positions that are seen; 0: all */
    int64_t wide;         /* the dtype of everything is float32, else bfloat16 */
    float scale, softcap; /* softcap 0: none */
};

/* Heads `first` to `first + count` of a sequence, which share the keys and values. */
INLINE void attend_heads(const struct attention *task, int64_t sequence, int64_t first, int64_t count,
                         const void *keys, const void *values, int64_t length, bool wide)
{
    struct head heads[HEADS];
    int64_t dim = task->dim, value_dim = task->value_dim;
    for (int64_t h = 0; h < count; h++) {
        widen_query(row(&task->query, sequence, first + h, wide), dim, task->scale, wide, heads[h].query);
        begin_head(&heads[h], value_dim, task->sinks ? task->sinks + first + h : NULL);
    }
    attend_blocks(heads, count, keys, dim, values, value_dim, value_dim, first_seen(task->window, length), length,
                  task->softcap, wide);
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
