/* Attention of one new token a sequence over latents, of which keys and values are products (DeepSeek-V2's MLA).
 *
 * A head's score of a position is q.(W_UK c) + q_rope.k_rope = (q W_UK).c + q_rope.k_rope, so its query is multiplied
 * by W_UK once, and attends to latents c as they are kept; so do the values, whose sum is multiplied by W_UV at the end
 * ("absorbed"). Nothing is rounded in between. What a sequence gets depends on nothing but its own numbers.
 */
#include "dense/heads.h"
#include "dense/steps.h"

struct latent {
    struct rows query;  /* [sequences, heads, nope + rope] */
    struct rows key;    /* [sequences, 1, rank + rope]: a latent and the part of the key that has a position */
    void *out;          /* [sequences, heads, value_dim] */
    const float *sinks; /* [heads], or none */
    const void *weight; /* [heads, nope + value_dim, rank]: of each head W_UK and W_UV */
    int64_t heads, rank, rope, nope, value_dim;
    int64_t window;       /* positions that are seen; 0: all */
    int64_t wide;         /* the dtype of everything is float32, else bfloat16 */
    float scale, softcap; /* softcap 0: none */
};

/* A head's query by its W_UK, scaled. */
INLINE void absorb(const struct latent *task, const void *query, const void *weight, bool wide, struct head *head)
{
    float plain[MOST_DIM];
    for (int64_t i = 0; i < task->nope; i++)
        plain[i] = get(query, i, wide) * task->scale;
    memset(head->query, 0, task->rank * sizeof(float));
    add(head->query, plain, weight, task->rank, task->rank, task->nope, wide, 1);
    widen_query(at(query, task->nope, wide), task->rope, task->scale, wide, head->query + task->rank);
}

/* A head's sum of latents by its W_UV. */
INLINE void project(const struct latent *task, struct head *head, const void *weight, bool wide, void *out)
{
    float some[ROWS];
    for (int64_t i = 0; i < task->value_dim; i += ROWS) {
        int64_t rows = task->value_dim - i < ROWS ? task->value_dim - i : ROWS;
        if (rows == ROWS)
            products(head->sums, at(weight, i * task->rank, wide), task->rank, ROWS, wide, some);
        else
            for (int64_t r = 0; r < rows; r++)
                products(head->sums, at(weight, (i + r) * task->rank, wide), task->rank, 1, wide, some + r);
        for (int64_t r = 0; r < rows; r++)
            set(out, i + r, some[r] / head->total, wide);
    }
}

INLINE void attend_latent_heads(const struct latent *task, int64_t sequence, int64_t first, int64_t count,
                                const void *latents, int64_t length, bool wide)
{
    struct head heads[HEADS];
    int64_t rank = task->rank, dim = rank + task->rope, both = task->nope + task->value_dim;
    const void *weight = at(task->weight, first * both * rank, wide);
    for (int64_t h = 0; h < count; h++) {
        begin_head(&heads[h], rank, task->sinks ? task->sinks + first + h : NULL);
        absorb(task, row(&task->query, sequence, first + h, wide), at(weight, h * both * rank, wide), wide,
               &heads[h]);
    }
    attend_blocks(heads, count, latents, dim, latents, rank, dim, first_seen(task->window, length), length,
                  task->softcap, wide);
    for (int64_t h = 0; h < count; h++)
        project(task, &heads[h], at(weight, (h * both + task->nope) * rank, wide), wide,
                at(task->out, (sequence * task->heads + first + h) * task->value_dim, wide));
}

INLINE void attend_latent_sequence(const struct latent *task, int64_t sequence, const struct place *place, bool wide)
{
    int64_t dim = task->rank + task->rope;
    memcpy(at(place->keys, (place->length - 1) * dim, wide), row(&task->key, sequence, 0, wide),
           (size_t)((wide ? 4 : 2) * dim));
    for (int64_t h = 0; h < task->heads; h += HEADS)
        attend_latent_heads(task, sequence, h, task->heads - h < HEADS ? task->heads - h : HEADS, place->keys,
                            place->length, wide);
}

/* Stores the new latents of `count` sequences at the ends of their caches, and attends to all of them. */
EXPORT void attend_latent(const struct latent *task, const struct place *places, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        if (task->wide)
            attend_latent_sequence(task, n, &places[n], true);
        else
            attend_latent_sequence(task, n, &places[n], false);
}
