/* Products of matrices that lie transposed, [ins, outs], with rows of x.
 *
 * The lanes of a vector are neighbouring outs. Sums stay in the first cache while the rows of weights pass, a few at
 * once, so that each sum is loaded and stored once for all of them; memory streams these few rows side by side.
 */
#include "linear/transposed.h"

enum {
    DEPTH = 4,   /* rows of weights at once; for a single row of x one, which memory streams fastest */
    GROUP = 8,   /* the most rows of x at once */
    SUMS = 4096, /* what they and some outs make: sums that stay in the first cache */
    AHEAD = 512, /* bytes by which the next weights are fetched */
};

/* What is added to the sums of a group: `depth` rows of weights, `line` outs long, and their columns of x. */
typedef struct {
    const bfloat16 *weights; /* from the group's first out on */
    const float *x;
    int64_t line, ins, rows, outs;
    int64_t pairs; /* of vectors in a row of sums: outs at even places, and at odd ones */
} Slab;

INLINE Step widen_pairs(const bfloat16 *weights, int64_t outs)
{
    words pairs = {0};
    if (outs >= STEP)
        memcpy(&pairs, weights, sizeof pairs);
    else
        memcpy(&pairs, weights, sizeof *weights * outs);
    return (Step){(floats)(pairs << 16), (floats)(pairs & 0xffff0000u)};
}

INLINE void add_slab(const Slab *slab, int depth, Step *sums)
{
    for (int64_t pair = 0; pair < slab->pairs; pair++) {
        Step weights[DEPTH];
        UNROLL
        for (int d = 0; d < depth; d++) {
            const bfloat16 *from = slab->weights + slab->line * d + STEP * pair;
            weights[d] = widen_pairs(from, slab->outs - STEP * pair);
            __builtin_prefetch((const char *)from + AHEAD);
        }
        for (int64_t row = 0; row < slab->rows; row++) {
            const float *x = slab->x + slab->ins * row;
            Step sum = sums[slab->pairs * row + pair];
            UNROLL
            for (int d = 0; d < depth; d++) {
                floats factor = (floats){0} + x[d];
                sum.low = multiply_add(weights[d].low, factor, sum.low);
                sum.high = multiply_add(weights[d].high, factor, sum.high);
            }
            sums[slab->pairs * row + pair] = sum;
        }
    }
}

/* Results of a group of rows from `row` on with some outs from `out` on. */
static void run_group(const Matrix *matrix, Slab slab, int64_t row, int64_t out, const Sink *sink)
{
    Step sums[SUMS / STEP];
    float values[SUMS];
    memset(sums, 0, sizeof *sums * slab.rows * slab.pairs);
    for (int64_t column = 0, depth; column < slab.ins; column += depth) {
        depth = slab.rows > 1 && column + DEPTH <= slab.ins ? DEPTH : 1;
        if (depth == DEPTH)
            add_slab(&slab, DEPTH, sums);
        else
            add_slab(&slab, 1, sums);
        slab.weights += depth * slab.line;
        slab.x += depth;
    }
    for (int64_t i = 0; i < slab.rows; i++)
        for (int64_t place = 0; place < slab.outs; place++) {
            const Step *sum = &sums[slab.pairs * i + place / STEP];
            int64_t lane = place % STEP / 2;
            float bias = matrix->bias ? widen(matrix->bias[out + place]) : 0;
            values[slab.outs * i + place] = (place % 2 ? sum->high : sum->low)[lane] + bias;
        }
    sink->take(sink, values, slab.outs, row, slab.rows, out, slab.outs);
}

void transposed_products(const Matrix *matrix, const float *x, int64_t rows, int64_t ins, int64_t outs,
                         const Sink *sink)
{
    int64_t most_rows = rows < GROUP ? rows : GROUP, most_outs = SUMS / most_rows / STEP * STEP;
    for (int64_t out = 0; out < outs; out += most_outs)
        for (int64_t row = 0; row < rows; row += most_rows) {
            int64_t its_rows = rows - row < most_rows ? rows - row : most_rows;
            int64_t its_outs = outs - out < most_outs ? outs - out : most_outs, pairs = (its_outs + STEP - 1) / STEP;
            Slab slab = {(const bfloat16 *)matrix->weights + out, x + ins * row, outs, ins, its_rows, its_outs, pairs};
            run_group(matrix, slab, row, out, sink);
        }
}
