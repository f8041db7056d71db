/* Products of matrices that lie transposed, [ins, outs], with rows of x.
 *
 * The lanes of a vector are neighbouring outs. Sums stay in the first cache while the rows of weights pass, a few at
 * once, so that each sum is loaded and stored once for all of them; memory streams these few rows side by side.
 */
#include "transposed.h"

enum {
    DEPTH = 4,  /* rows of weights at once */
    OUTS = 512, /* whose sums stay in the first cache, with those of GROUP rows of x */
    GROUP = 8,
    PAIRS = OUTS / STEP, /* of vectors: outs at even places, and at odd ones */
};

/* What is added to the sums of a group: `depth` rows of weights, `line` outs long, and their columns of x. */
typedef struct {
    const bfloat16 *weights; /* from the group's first out on */
    const float *x;
    int64_t line, ins, rows, outs;
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

INLINE void add_slab(const Slab *slab, int depth, Step sums[GROUP][PAIRS])
{
    for (int64_t pair = 0; pair * STEP < slab->outs; pair++) {
        Step weights[DEPTH];
        UNROLL
        for (int d = 0; d < depth; d++)
            weights[d] = widen_pairs(slab->weights + slab->line * d + STEP * pair, slab->outs - STEP * pair);
        for (int64_t row = 0; row < slab->rows; row++) {
            const float *x = slab->x + slab->ins * row;
            Step sum = sums[row][pair];
            UNROLL
            for (int d = 0; d < depth; d++) {
                floats factor = (floats){0} + x[d];
                sum.low = multiply_add(weights[d].low, factor, sum.low);
                sum.high = multiply_add(weights[d].high, factor, sum.high);
            }
            sums[row][pair] = sum;
        }
    }
}

/* Results of a group of rows from `row` on with some outs from `out` on. */
static void run_group(const Matrix *matrix, Slab slab, int64_t row, int64_t out, const Sink *sink)
{
    Step sums[GROUP][PAIRS];
    float values[GROUP][OUTS];
    memset(sums, 0, sizeof sums);
    int64_t column = 0;
    for (; column + DEPTH <= slab.ins; column += DEPTH, slab.weights += DEPTH * slab.line, slab.x += DEPTH)
        add_slab(&slab, DEPTH, sums);
    for (; column < slab.ins; column++, slab.weights += slab.line, slab.x++)
        add_slab(&slab, 1, sums);
    for (int64_t i = 0; i < slab.rows; i++)
        for (int64_t place = 0; place < slab.outs; place++) {
            const Step *sum = &sums[i][place / STEP];
            int64_t lane = place % STEP / 2;
            float bias = matrix->bias ? widen(matrix->bias[out + place]) : 0;
            values[i][place] = (place % 2 ? sum->high : sum->low)[lane] + bias;
        }
    sink->take(sink, values[0], OUTS, row, slab.rows, out, slab.outs);
}

void transposed_products(const Matrix *matrix, const float *x, int64_t rows, int64_t ins, int64_t outs,
                         const Sink *sink)
{
    for (int64_t out = 0; out < outs; out += OUTS)
        for (int64_t row = 0; row < rows; row += GROUP) {
            Slab slab = {(const bfloat16 *)matrix->weights + out, x + ins * row, outs, ins,
                         rows - row < GROUP ? rows - row : GROUP, outs - out < OUTS ? outs - out : OUTS};
            run_group(matrix, slab, row, out, sink);
        }
}
