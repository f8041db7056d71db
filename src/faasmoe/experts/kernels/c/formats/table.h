/* What linear layers ask of a weight format: one row of the table for each `Format`. */
#pragma once

#include "linear/tile.h"

/* A linear layer's weights. Of a group of layers, the columns of `Layers.table` begin with these. */
typedef struct {
    const char *weights;  /* [outs, ins], at any address */
    const void *scales;   /* float32 [outs], or what the format has, or NULL */
    int64_t format;       /* a Format */
    const void *bias;     /* [outs] in the dtype of x, or NULL */
} Matrix;

/* Weight rows whose results are taken at once. */
typedef struct {
    const Matrix *matrix;
    int64_t ins, first, last;
    int64_t end;  /* of all weight rows that are asked for */
    bool cached;  /* whether other rows of x have met the chunk */
} Chunk;

typedef struct {
    /* Bytes of a row of weights. */
    int64_t (*line)(Format format, int64_t ins);
    /* Bytes of a row of x as `sums` reads it. */
    int64_t (*row_size)(Format format, int64_t ins);
    /* Lay out x [ins] as row number `row` of the `rows` that go through a tile together, at `packed`. */
    void (*pack_row)(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins);
    /* Products of a chunk with the `rows` rows at `x`, at most MOST_ROWS: LANES sums each, to be added up, to `sums`
     * [last - first, rows]. */
    void (*sums)(const Chunk *chunk, const char *x, int64_t rows, floats *sums);
    /* Whether the scales are float32 [outs], which the added up sums of a weight row are multiplied by. */
    bool scaled;
} FormatFunctions;

extern const FormatFunctions FORMATS[];

/* Declares the functions of one or several formats. */
#define FORMAT_FUNCTIONS(name)                                                                                         \
    int64_t name##_line(Format format, int64_t ins);                                                                   \
    int64_t name##_row_size(Format format, int64_t ins);                                                               \
    void name##_pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins);          \
    void name##_sums(const Chunk *chunk, const char *x, int64_t rows, floats *sums)
