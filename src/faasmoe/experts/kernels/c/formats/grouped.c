/* Products of weights with scales by group.
 *
 * Codes become bfloat16 in registers, where the CPU adds up products of these, else float32; both are exact. A lane
 * adds up products of one group at a time, in float32, and then the scale times them to its sum. Spans of columns follow
 * each other in order, so a row's sums have the same bits whatever rows come with it.
 */
#include "formats/grouped.h"

#include "formats/codes.h"

enum {
    BLOCK_BYTES = 24 << 10, /* of the rows of x that stay in the first cache while weights pass */
    AHEAD = 4096,           /* bytes from the weights that are read to those that are fetched */
    FP8_SPAN = 128,         /* columns with one scale */
};

INLINE Code code_of(Format format)
{
    return format == FP8 ? E4M3 : E2M1;
}

/* Columns after which scales are applied: groups of as many as there are lanes, or one group of more. */
INLINE int span_columns(Format format)
{
    return format == FP8 ? FP8_SPAN : unit_columns(code_of(format));
}

/* Bytes of a span's scales. */
INLINE int span_scales(Format format)
{
    return format == FP8 ? (int)sizeof(float) : span_columns(format) / (format == MXFP4 ? 32 : 16);
}

INLINE int64_t code_bytes(Format format, int64_t columns)
{
    return columns * code_bits(code_of(format)) / 8;
}

/* Bytes of a row's x that meet one vector of codes. */
INLINE int64_t unit_bytes(Format format)
{
    return (int64_t)part_count(code_of(format)) * VECTOR;
}

INLINE int64_t unit_count(Format format, int64_t columns)
{
    int unit = unit_columns(code_of(format));
    return (columns + unit - 1) / unit;
}

int64_t grouped_line(Format format, int64_t ins)
{
    return code_bytes(format, ins);
}

int64_t grouped_row_size(Format format, int64_t ins)
{
    return unit_count(format, ins) * unit_bytes(format);
}

/* `bytes` of a vector, less than all and a multiple of 8; the others are 0. What is behind may be no memory of ours. */
INLINE words load_some(const char *codes, int64_t bytes)
{
#ifdef __AVX512BW__
    return (words)_mm512_maskz_loadu_epi8(((uint64_t)1 << bytes) - 1, codes);
#else
    words loaded = {0};
    UNROLL
    for (int at = 0; at < VECTOR; at += 8)
        if (at < bytes)
            memcpy((char *)&loaded + at, codes + at, 8);
    return loaded;
#endif
}

/* The scale of each lane, from the bytes of a span's scales. */
INLINE floats scales_of(Format format, const char *bytes)
{
    /* by which a lane's byte is shifted: of four bytes, one for four lanes, to the exponent; of eight, one for two */
    static const uint32_t LEFT[16] = {23, 23, 23, 23, 15, 15, 15, 15, 7, 7, 7, 7, 31, 31, 31, 31};
    static const uint32_t RIGHT[16] = {0, 0, 8, 8, 16, 16, 24, 24, 0, 0, 8, 8, 16, 16, 24, 24};
    words shifts;
    uint32_t all[2] = {0};
    memcpy(all, bytes, span_scales(format));
    switch (format) {
    case MXFP4: { /* 2^(byte - 127), the byte 255 an infinity */
        memcpy(&shifts, LEFT, sizeof shifts);
        words four = (words){0} + all[0], bits = (four << shifts | four >> (32 - shifts)) & 0x7f800000;
        return (floats)(bits | ((words)(bits == 0) & 0x400000));
    }
    case NVFP4: {
        memcpy(&shifts, RIGHT, sizeof shifts);
        words both = (words){0} + all[0];
#if LANES == 16
        both = (words)_mm512_mask_set1_epi32((__m512i)both, 0xff00, (int)all[1]);
#endif
        return number_of(E4M3, both >> shifts);
    }
    default:
        return (floats)((words){0} + all[0]);
    }
}

/* Add scales times products of up to a span's columns to `sums` [rows]. */
INLINE void add_span(Format format, int rows, const char *codes, int64_t columns, floats scales, const char *x,
                     floats *sums)
{
    const int unit = unit_columns(code_of(format)), parts = part_count(code_of(format));
    floats products[MOST_ROWS] = {{0}};
    for (int64_t done = 0; done < columns; done += unit, codes += VECTOR, x += unit_bytes(format) * rows) {
        int64_t left = code_bytes(format, columns - done);
        if (rows > 1)
            __builtin_prefetch(codes + AHEAD);
        words loaded = left >= VECTOR ? (words)load(codes) : load_some(codes, left);
        UNROLL
        for (int part = 0; part < parts; part++) {
            floats weights = decode(code_of(format), loaded, part);
            UNROLL
            for (int row = 0; row < rows; row++)
                products[row] = add_products(BFLOAT16, weights, x + unit_bytes(format) * row + VECTOR * part,
                                             products[row]);
        }
    }
    UNROLL
    for (int row = 0; row < rows; row++)
        sums[row] = multiply_add(scales, products[row], sums[row]);
}

/* Add the products of some columns of one weight row to `sums` [rows], which begin at zero if `fresh`. */
INLINE void tile_row(Format format, int rows, const char *codes, const char *scales, bool constant, const char *x,
                     int64_t columns, bool fresh, floats *sums)
{
    const int span = span_columns(format);
    const int64_t x_bytes = unit_count(format, span) * unit_bytes(format) * rows;
    const int64_t step = constant ? 0 : span_scales(format);
    floats running[MOST_ROWS];
    UNROLL
    for (int row = 0; row < rows; row++)
        running[row] = fresh ? (floats){0} : sums[row];
    ONE_BY_ONE
    for (int64_t spans = columns / span; spans > 0; spans--) {
        add_span(format, rows, codes, span, scales_of(format, scales), x, running);
        codes += code_bytes(format, span);
        scales += step;
        x += x_bytes;
    }
    if (columns % span) { /* fewer scales, too */
        char rest[8] = {0};
        int64_t its = format == FP8 ? span_scales(format) : columns % span * span_scales(format) / span;
        for (int64_t i = 0; i < its; i++)
            rest[i] = scales[i];
        add_span(format, rows, codes, columns % span, scales_of(format, rest), x, running);
    }
    UNROLL
    for (int row = 0; row < rows; row++)
        sums[row] = running[row];
}

/* Some weight rows, block after block of columns. */
INLINE void tile_rows(Format format, int rows, const char *codes, const Scales *scales, const char *x, int64_t ins,
                      int64_t first, int64_t last, floats *sums)
{
    const int span = span_columns(format);
    const int64_t line = code_bytes(format, ins), x_span = unit_count(format, span) * unit_bytes(format) * rows;
    const int64_t block = BLOCK_BYTES / x_span * span;
    for (int64_t column = 0; column < ins; column += block) {
        int64_t columns = ins - column < block ? ins - column : block, before = column / span;
        for (int64_t out = first; out < last; out++) {
            const char *its = scales->at + scales->line * (out / scales->outs);
            its += scales->constant ? 0 : before * span_scales(format);
            tile_row(format, rows, codes + line * out + code_bytes(format, column), its, scales->constant,
                     x + x_span * before, columns, column == 0, sums + rows * (out - first));
        }
    }
    if (scales->factor != 1)
        for (int64_t i = 0; i < rows * (last - first); i++)
            sums[i] *= (float)scales->factor;
}

typedef void Tiles(const char *codes, const Scales *scales, const char *x, int64_t ins, int64_t first, int64_t last,
                   floats *sums);

#define TILES(format, rows)                                                                                            \
    static void tiles_##format##_##rows(const char *codes, const Scales *scales, const char *x, int64_t ins,           \
                                        int64_t first, int64_t last, floats *sums)                                     \
    {                                                                                                                  \
        tile_rows(format, rows, codes, scales, x, ins, first, last, sums);                                             \
    }
#define NAME(format, rows) tiles_##format##_##rows,

BY_ROWS(TILES, MXFP4)
BY_ROWS(TILES, NVFP4)
BY_ROWS(TILES, FP8)
static Tiles *const ALL[][MOST_ROWS] = {{BY_ROWS(NAME, MXFP4)}, {BY_ROWS(NAME, NVFP4)}, {BY_ROWS(NAME, FP8)}};

void grouped_sums(const Chunk *chunk, const char *x, int64_t rows, floats *sums)
{
    const Matrix *matrix = chunk->matrix;
    ALL[matrix->format - MXFP4][rows - 1](matrix->weights, matrix->scales, x, chunk->ins, chunk->first, chunk->last,
                                          sums);
}

/* The columns that meet one vector of codes. */
INLINE void pack_unit(Code code, const bfloat16 *x, char *to)
{
    const int count = LANES * LANE_BITS / PART_BITS; /* of numbers in a part */
    for (int part = 0; part < part_count(code); part++)
        for (int i = 0; i < count; i++) {
            bfloat16 number = x[part_count(code) * i + part];
            float wide = widen(number);
            if (DOTS)
                memcpy(to + VECTOR * part + 2 * i, &number, sizeof number);
            else
                memcpy(to + VECTOR * part + 4 * i, &wide, sizeof wide);
        }
}

INLINE void pack(Format format, const bfloat16 *x, char *to, int64_t rows, int64_t ins)
{
    const int unit = unit_columns(code_of(format));
    for (; ins > 0; ins -= unit, x += unit, to += unit_bytes(format) * rows) {
        bfloat16 rest[LANES * LANE_BITS / 4] = {0};
        if (ins < unit)
            memcpy(rest, x, sizeof *x * ins);
        pack_unit(code_of(format), ins < unit ? rest : x, to);
    }
}

void grouped_pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    char *to = packed + unit_bytes(format) * row;
    if (code_of(format) == E2M1)
        pack(MXFP4, x, to, rows, ins);
    else
        pack(FP8, x, to, rows, ins);
}
