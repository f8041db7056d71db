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

/* The two vectors of STEP neighbouring outs. */
typedef struct {
    floats low, high;
} Step;

/* What is added to the sums of a group: `depth` rows of weights, `line` outs long, and their columns of x. */
typedef struct {
    Format format;
    const char *weights; /* from the group's first out on */
    const float *x;
    int64_t line; /* bytes */
    int64_t ins, rows, outs;
    int64_t pairs; /* of vectors in a row of sums: the halves of a `Step` */
} Slab;

/* Weights of STEP neighbouring outs; zeros behind the last of them. */
INLINE Step read_outs(Format format, const char *weights, int64_t outs)
{
    char rest[STEP * sizeof(float)] = {0};
    if (outs < STEP)
        weights = memcpy(rest, weights, weight_bytes(format) * outs);
    return (Step){read_weights(format, weights, 0), read_weights(format, weights, 1)};
}

INLINE void add_rows(Format format, const Slab *slab, int depth, Step *sums)
{
    for (int64_t pair = 0; pair < slab->pairs; pair++) {
        Step weights[DEPTH];
        UNROLL
        for (int d = 0; d < depth; d++) {
            const char *from = slab->weights + slab->line * d + STEP * weight_bytes(format) * pair;
            weights[d] = read_outs(format, from, slab->outs - STEP * pair);
            __builtin_prefetch(from + AHEAD);
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

/* Add the products of one row of weights, or DEPTH of them. */
static void add_slab(const Slab *slab, bool one, Step *sums)
{
    switch (slab->format) {
    case FLOAT32: one ? add_rows(FLOAT32, slab, 1, sums) : add_rows(FLOAT32, slab, DEPTH, sums); break;
    case FLOAT16: one ? add_rows(FLOAT16, slab, 1, sums) : add_rows(FLOAT16, slab, DEPTH, sums); break;
    default: one ? add_rows(WIDE_BFLOAT16, slab, 1, sums) : add_rows(WIDE_BFLOAT16, slab, DEPTH, sums);
    }
}

/* The result of an out: bfloat16 lies in both halves of a step by turns, others one half after the other. */
static float result(const Slab *slab, const Step *sums, int64_t out)
{
    const Step *sum = sums + out / STEP;
    bool turns = slab->format == BFLOAT16 || slab->format == WIDE_BFLOAT16;
    int64_t place = out % STEP, lane = turns ? place / 2 : place % LANES;
    return ((turns ? place % 2 : place / LANES) ? sum->high : sum->low)[lane];
}

/* Results of a group of rows from `row` on with some outs from `out` on. */
static void run_group(const Matrix *matrix, Slab slab, int64_t row, int64_t out, const Sink *sink)
{
    Step sums[SUMS / STEP];
    float values[SUMS];
    memset(sums, 0, sizeof *sums * slab.rows * slab.pairs);
    for (int64_t column = 0, depth; column < slab.ins; column += depth) {
        depth = slab.rows > 1 && column + DEPTH <= slab.ins ? DEPTH : 1;
        add_slab(&slab, depth == 1, sums);
        slab.weights += depth * slab.line;
        slab.x += depth;
    }
    for (int64_t i = 0; i < slab.rows; i++)
        for (int64_t place = 0; place < slab.outs; place++)
            values[slab.outs * i + place] = result(&slab, sums + slab.pairs * i, place) + bias_of(matrix, out + place);
    sink->take(sink, values, slab.outs, row, slab.rows, out, slab.outs);
}

void transposed_products(const Matrix *matrix, const float *x, int64_t rows, int64_t ins, int64_t outs,
                         const Sink *sink)
{
    Format format = matrix->format;
    int64_t most_rows = rows < GROUP ? rows : GROUP, most_outs = SUMS / most_rows / STEP * STEP;
    for (int64_t out = 0; out < outs; out += most_outs)
        for (int64_t row = 0; row < rows; row += most_rows) {
            int64_t its_rows = rows - row < most_rows ? rows - row : most_rows;
            int64_t its_outs = outs - out < most_outs ? outs - out : most_outs, pairs = (its_outs + STEP - 1) / STEP;
            const char *weights = matrix->weights + weight_bytes(format) * out;
            int64_t line = weight_bytes(format) * outs;
            Slab slab = {format, weights, x + ins * row, line, ins, its_rows, its_outs, pairs};
            run_group(matrix, slab, row, out, sink);
        }
}
