/* Linear layers over any number of rows, with weights in any `Format`.
 *
 * A token sends one row, or a few, to an expert: each weight is read once from memory and used as often as there are
 * rows. `python -m benchmarks.linear` measures it.
 */
#include "linear/matvec.h"

#include "base/scratch.h"
#include "base/totals.h"

enum {
    X_BYTES = 2 * 8 * WHOLE, /* of the rows of a tile that stay in the first cache while weights pass */
    STREAMED = 6,            /* so many rows come from the second cache in time, unless weights from memory go there */
    CHUNK_BYTES = 192 << 10, /* of weights that stay in the second cache while all rows of x pass */
    AHEAD = 8 << 10,         /* bytes of weights that pass between a fetch and its use */
    AHEAD_IN_LINE = 1 << 10, /* the same where weight rows go one by one, as for one row of x: they are one stream */
};

typedef void Tile(const char *w, int64_t line, const char *x, floats *running, int64_t columns, bool fresh,
                  int64_t ahead);

#define TILE(format, outs, rows)                                                                                       \
    static void tile_##format##_##outs##_##rows(const char *w, int64_t line, const char *x, floats *running,           \
                                                int64_t columns, bool fresh, int64_t ahead)                            \
    {                                                                                                                  \
        tile(format, outs, rows, w, line, x, running, columns, fresh, ahead);                                          \
    }
#define NAME(format, outs, rows) tile_##format##_##outs##_##rows,

BY_ROWS(TILE, BFLOAT16, 1)
BY_ROWS(TILE, BFLOAT16, 3)
BY_ROWS(TILE, INT8, 1)
BY_ROWS(TILE, INT8, 3)
BY_ROWS(TILE, FLOAT32, 1)
BY_ROWS(TILE, FLOAT32, 3)
BY_ROWS(TILE, FLOAT16, 1)
BY_ROWS(TILE, FLOAT16, 3)
BY_ROWS(TILE, WIDE_BFLOAT16, 1)
BY_ROWS(TILE, WIDE_BFLOAT16, 3)
#define TILES(outs)                                                                                                    \
    {[BFLOAT16] = {BY_ROWS(NAME, BFLOAT16, outs)},                                                                     \
     [INT8] = {BY_ROWS(NAME, INT8, outs)},                                                                             \
     [FLOAT32] = {BY_ROWS(NAME, FLOAT32, outs)},                                                                       \
     [FLOAT16] = {BY_ROWS(NAME, FLOAT16, outs)},                                                                       \
     [WIDE_BFLOAT16] = {BY_ROWS(NAME, WIDE_BFLOAT16, outs)}}
static Tile *const ONE_OUT[][MOST_ROWS] = TILES(1), *const SEVERAL[][MOST_ROWS] = TILES(3);

/* Bytes from the weights of the tile at `out` and `column` to those that are fetched meanwhile: AHEAD in the order of
 * tiles, which is that of weight rows, then of blocks of columns, then of chunks.
 */
static int64_t fetch_distance(const Chunk *chunk, int64_t line, int64_t out, int64_t column, int64_t block)
{
    int64_t width = weight_bytes(chunk->matrix->format), outs = chunk->last - chunk->first;
    int64_t tile_bytes = MOST_OUTS * width * (block < chunk->ins ? block : chunk->ins);
    int64_t to = out + MOST_OUTS * ((AHEAD + tile_bytes - 1) / tile_bytes), to_column = column;
    if (to >= chunk->last) {
        to -= outs;
        to_column += block;
    }
    if (to_column >= chunk->ins) {
        to += outs;
        to_column = 0;
    }
    return to < chunk->end ? line * (to - out) + width * (to_column - column) : 0;
}

/* Whether a row of x meets one weight row at a time, so that weights are one stream, as memory is read fastest.
 *
 * That leaves one sum, to which a step of 16 bits without AVX-512 adds 32 bytes in two additions that wait for each
 * other: 12 to 13 GB/s on an AMD EPYC (Zen 3), where memory gives 21 and several weight rows at a time 20.
 */
INLINE bool one_by_one(Format format)
{
    return sizeof(floats) >= 64 || format == INT8 || format == FLOAT32 || (DOTS && format == BFLOAT16);
}

void plain_sums(const Chunk *chunk, const char *x, int64_t rows, floats *running)
{
    Format format = chunk->matrix->format;
    int64_t line = line_bytes(format, chunk->ins);
    int64_t x_column = packed_bytes(format) * rows, unit = format == INT8 ? WHOLE : STEP;
    int64_t at_once = rows == 1 && one_by_one(format) ? 1 : MOST_OUTS; /* weight rows of a tile */
    bool streamed = chunk->cached && rows >= STREAMED;
    int64_t block = streamed ? chunk->ins : X_BYTES / x_column / unit * unit; /* of columns */
    for (int64_t column = 0; column < chunk->ins; column += block) {
        int64_t columns = chunk->ins - column < block ? chunk->ins - column : block, out = chunk->first;
        while (out < chunk->last) {
            int64_t outs = out + at_once <= chunk->last ? at_once : 1;
            const char *w = chunk->matrix->weights + line * out + weight_bytes(format) * column;
            Tile *run = (outs == 1 ? ONE_OUT : SEVERAL)[format][rows - 1];
            run(w, line, x + x_column * column, running + rows * (out - chunk->first), columns, column == 0,
                at_once == 1 ? AHEAD_IN_LINE : fetch_distance(chunk, line, out, column, block));
            out += outs;
        }
    }
}

/* All results of a chunk with `rows` rows of x, from `row` on. */
static void run_group(const Chunk *chunk, const char *x, int64_t row, int64_t rows, const Sink *sink)
{
    floats running[CHUNK * MOST_ROWS], values[MOST_ROWS * CHUNK / LANES];
    floats scales[CHUNK / LANES], biases[CHUNK / LANES] = {{0}};
    int64_t outs = chunk->last - chunk->first;
    const Matrix *matrix = chunk->matrix;
    const float *x_scales = row_scales(x, rows, chunk->ins); /* if it is INT8 */
    const FormatFunctions *format = &FORMATS[matrix->format];
    if (format->scaled)
        memcpy(scales, (const float *)matrix->scales + chunk->first, sizeof(float) * outs);
    for (int64_t out = 0; matrix->bias && out < outs; out++)
        ((float *)biases)[out] = bias_of(matrix, chunk->first + out);
    format->sums(chunk, x, rows, running);
    if (outs % LANES) /* zeros for the lanes behind the last result */
        memset(running + rows * outs, 0, sizeof *running * rows * (LANES - outs % LANES));
    for (int64_t out = 0; out < outs; out += LANES)
        for (int64_t i = 0; i < rows; i++) {
            floats sums = totals(running + rows * out + i, rows);
            if (matrix->format == INT8)
                sums *= x_scales[i];
            if (format->scaled)
                sums *= scales[out / LANES];
            values[(CHUNK * i + out) / LANES] = sums + biases[out / LANES];
        }
    sink->take(sink, (float *)values, CHUNK, row, rows, chunk->first, outs);
}

void products(const Matrix *matrix, const char *x, int64_t rows, int64_t ins, int64_t first, int64_t last,
              const Sink *sink)
{
    Format format = matrix->format;
    int64_t line = line_bytes(format, ins), outs = CHUNK_BYTES / line / MOST_OUTS * MOST_OUTS;
    outs = outs < MOST_OUTS ? MOST_OUTS : outs > CHUNK ? CHUNK : outs;
    for (int64_t out = first; out < last; out += outs) {
        Chunk chunk = {matrix, ins, out, out + outs < last ? out + outs : last, last, false};
        for (int64_t row = 0, at_once; row < rows; row += at_once) {
            at_once = row_group(rows, row).rows;
            run_group(&chunk, x + row_size(format, ins) * row, row, at_once, sink);
            chunk.cached = true;
        }
    }
}

typedef struct {
    Sink sink;
    void *y;
    int64_t stride;
} Storing;

static void store_wide(const Sink *sink, const float *values, int64_t stride, int64_t row, int64_t rows, int64_t out,
                       int64_t outs)
{
    const Storing *storing = (const Storing *)sink;
    for (int64_t i = 0; i < rows; i++)
        memcpy((float *)storing->y + storing->stride * (row + i) + out, values + stride * i, sizeof *values * outs);
}

static void store_rounded(const Sink *sink, const float *values, int64_t stride, int64_t row, int64_t rows, int64_t out,
                          int64_t outs)
{
    const Storing *storing = (const Storing *)sink;
    for (int64_t i = 0; i < rows; i++) {
        bfloat16 *to = (bfloat16 *)storing->y + storing->stride * (row + i) + out;
        for (int64_t place = 0; place < outs; place++)
            to[place] = narrow(values[stride * i + place]);
    }
}

void linear_part(const Matrix *matrix, const char *x, void *y, int64_t rows, int64_t outs, int64_t ins,
                 int64_t first, int64_t last)
{
    Storing storing = {{wide(matrix->format) ? store_wide : store_rounded}, y, outs};
    products(matrix, x, rows, ins, first, last, &storing.sink);
}

void pack_into(Format format, const void *x, int64_t rows, int64_t ins, char *packed)
{
    for (int64_t row = 0; row < rows; row++)
        pack_row(format, (const char *)x + numbers_size(format, ins) * row, packed, rows, row, ins);
}

const char *pack_rows(Format format, const void *x, int64_t rows, int64_t ins)
{
    char *packed = scratch(rows * row_size(format, ins));
    if (packed)
        pack_into(format, x, rows, ins, packed);
    return packed;
}

/* y = x w^T + bias: x [rows, ins], bias and y [rows, outs] in float32 or bfloat16, as the format has them.
 *
 * False if there is no memory.
 */
EXPORT bool linear_rows(const void *x, const char *weights, const void *scales, int64_t format, const void *bias,
                        void *y, int64_t rows, int64_t outs, int64_t ins)
{
    Matrix matrix = {weights, scales, format, bias};
    const char *packed = pack_rows(format, x, rows, ins);
    if (!packed)
        return false;
    linear_part(&matrix, packed, y, rows, outs, ins, 0, outs);
    return true;
}
