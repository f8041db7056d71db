/* Linear layers over any number of rows, with weights in bfloat16 or in eight bits.
 *
 * A token sends one row, or a few, to an expert: each weight is read once from memory and used as often as there are
 * rows. `python -m benchmarks.linear` measures it.
 */
#include "matvec.h"

#include "scratch.h"

enum {
    X_BYTES = 16 << 10,     /* of the rows of a tile that stay in the first cache while weights pass, if rows are many */
    CHUNK_BYTES = 192 << 10, /* of weights that stay in the second cache while all rows of x pass */
    AHEAD = 512,             /* bytes by which the next weights are fetched; the hardware fetches what is farther away */
};

typedef void Tile(const char *w, int64_t line, const char *x, floats *running, int64_t columns, bool fresh,
                  int64_t ahead);

#define TILE(format, outs, rows)                                                                                       \
    static void tile_##format##_##outs##_##rows(const char *w, int64_t line, const char *x, floats *running,           \
                                                int64_t columns, bool fresh, int64_t ahead)                            \
    {                                                                                                                  \
        tile(format, outs, rows, w, line, x, running, columns, fresh, ahead);                                          \
    }
#if defined(__AVX512F__) || defined(__aarch64__)
#define BY_ROWS(each, format, outs)                                                                                    \
    each(format, outs, 1) each(format, outs, 2) each(format, outs, 3) each(format, outs, 4) each(format, outs, 5)      \
        each(format, outs, 6) each(format, outs, 7) each(format, outs, 8)
#else
#define BY_ROWS(each, format, outs)                                                                                    \
    each(format, outs, 1) each(format, outs, 2) each(format, outs, 3) each(format, outs, 4)
#endif
#define NAME(format, outs, rows) tile_##format##_##outs##_##rows,

BY_ROWS(TILE, BFLOAT16, 1)
BY_ROWS(TILE, BFLOAT16, 3)
BY_ROWS(TILE, INT8, 1)
BY_ROWS(TILE, INT8, 3)
static Tile *const ONE_OUT[][MOST_ROWS] = {{BY_ROWS(NAME, BFLOAT16, 1)}, {BY_ROWS(NAME, INT8, 1)}};
static Tile *const SEVERAL[][MOST_ROWS] = {{BY_ROWS(NAME, BFLOAT16, 3)}, {BY_ROWS(NAME, INT8, 3)}};

/* As a tree of halves. */
static float total(floats sums)
{
    float lanes[LANES];
    memcpy(lanes, &sums, sizeof lanes);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++)
            lanes[lane] += lanes[lane + width];
    return lanes[0];
}

/* Weight rows that a tile of the one and one of the several rows of x reads at once.
 *
 * One at a time is what memory streams fastest, where a core keeps up with it.
 */
static int64_t outs_at_once(int64_t rows, bool single)
{
    return single && (LANES == 16 || rows > 2) ? 1 : MOST_OUTS;
}

typedef struct {
    const Matrix *matrix;
    int64_t ins, first, last; /* a chunk of weight rows */
    int64_t ahead;
    bool single; /* these are all rows of x */
} Chunk;

/* Running sums of a chunk with `rows` rows of x, which begin at `x`. */
static void run_tiles(const Chunk *chunk, const char *x, int64_t rows, floats *running)
{
    Format format = format_of(chunk->matrix);
    int64_t line = chunk->ins * weight_bytes(format), at_once = outs_at_once(rows, chunk->single);
    int64_t x_column = packed_bytes(format) * rows, block = X_BYTES / x_column / STEP * STEP;
    if (chunk->single || block >= chunk->ins)
        block = chunk->ins;
    for (int64_t column = 0; column < chunk->ins; column += block) {
        int64_t columns = chunk->ins - column < block ? chunk->ins - column : block, out = chunk->first;
        while (out < chunk->last) {
            int64_t outs = out + at_once <= chunk->last ? at_once : 1;
            const char *w = chunk->matrix->weights + line * out + weight_bytes(format) * column;
            Tile *run = (outs == 1 ? ONE_OUT : SEVERAL)[format][rows - 1];
            run(w, line, x + x_column * column, running + rows * (out - chunk->first), columns, column == 0, chunk->ahead);
            out += outs;
        }
    }
}

/* All results of a chunk with `rows` rows of x, from `row` on. */
static void run_group(const Chunk *chunk, const char *x, int64_t row, int64_t rows, const Sink *sink)
{
    floats running[CHUNK * MOST_ROWS];
    float values[MOST_ROWS * CHUNK];
    const Matrix *matrix = chunk->matrix;
    run_tiles(chunk, x, rows, running);
    for (int64_t out = chunk->first; out < chunk->last; out++) {
        float scale = matrix->scales ? matrix->scales[out] : 1, bias = matrix->bias ? widen(matrix->bias[out]) : 0;
        int64_t place = out - chunk->first;
        for (int64_t i = 0; i < rows; i++)
            values[CHUNK * i + place] = total(running[rows * place + i]) * scale + bias;
    }
    sink->take(sink, values, row, rows, chunk->first, chunk->last - chunk->first);
}

void products(const Matrix *matrix, const char *x, int64_t rows, int64_t ins, int64_t first, int64_t last,
              const Sink *sink)
{
    Format format = format_of(matrix);
    int64_t line = ins * weight_bytes(format), outs = CHUNK_BYTES / line / MOST_OUTS * MOST_OUTS;
    outs = outs < MOST_OUTS ? MOST_OUTS : outs > CHUNK ? CHUNK : outs;
    for (int64_t out = first; out < last; out += outs) {
        Chunk chunk = {matrix, ins, out, out + outs < last ? out + outs : last, AHEAD, rows <= MOST_ROWS};
        for (int64_t row = 0; row < rows; row += MOST_ROWS) {
            /* the second rows fetch the weights that all of them will need next */
            chunk.ahead = row == MOST_ROWS && chunk.last < last ? line * outs : row == 0 ? AHEAD : 0;
            run_group(&chunk, x + packed_size(format, row, ins), row, group_rows(rows, row), sink);
        }
    }
}

typedef struct {
    Sink sink;
    bfloat16 *y;
    int64_t stride;
} Rounding;

static void take_rounded(const Sink *sink, const float *values, int64_t row, int64_t rows, int64_t out, int64_t outs)
{
    const Rounding *rounding = (const Rounding *)sink;
    for (int64_t i = 0; i < rows; i++) {
        bfloat16 *to = rounding->y + rounding->stride * (row + i) + out;
        for (int64_t place = 0; place < outs; place++)
            to[place] = narrow(values[CHUNK * i + place]);
    }
}

void linear_part(const Matrix *matrix, const char *x, bfloat16 *y, int64_t rows, int64_t outs, int64_t ins,
                 int64_t first, int64_t last)
{
    Rounding rounding = {{take_rounded}, y, outs};
    products(matrix, x, rows, ins, first, last, &rounding.sink);
}

const char *pack_rows(Format format, const bfloat16 *x, int64_t rows, int64_t ins)
{
    char *packed = scratch(packed_size(format, rows, ins));
    for (int64_t row = 0; packed && row < rows; row++)
        pack_row(format, x + ins * row, packed, rows, row, ins);
    return packed;
}

/* y = x w^T + bias: x [rows, ins] and y [rows, outs] in bfloat16. False if there is no memory. */
EXPORT bool linear_rows(const bfloat16 *x, const char *weights, const float *scales, const bfloat16 *bias, bfloat16 *y,
                        int64_t rows, int64_t outs, int64_t ins)
{
    Matrix matrix = {weights, scales, bias};
    const char *packed = pack_rows(format_of(&matrix), x, rows, ins);
    if (!packed)
        return false;
    linear_part(&matrix, packed, y, rows, outs, ins, 0, outs);
    return true;
}

/* float32 sums [count] to bfloat16 y. */
EXPORT void round_to_bfloat16(const float *sums, bfloat16 *y, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = narrow(sums[i]);
}
