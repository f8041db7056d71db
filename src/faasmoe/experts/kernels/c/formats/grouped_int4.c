/* Products of weights in four bits, with scales and zeros by group, with rows of x in whole numbers.
 *
 * A unit is a vector of codes. Each of its lanes holds eight consecutive columns, so none has two groups. Part p of a
 * unit has, in sixteen bits, code p of four consecutive ones, less the group's zero. So sums of products are exact,
 * until a unit's are multiplied by its scales.
 */
#include "formats/grouped_int4.h"

#include "formats/whole.h"

enum { UNIT = 2 * VECTOR, PARTS = 4 };

/* A number of each group of a unit, in all lanes that are of the group; `numbers` has no more than these. */
INLINE words spread(int group, const uint32_t *numbers)
{
#if LANES == 16
    typedef uint32_t four_words __attribute__((vector_size(16)));
    four_words its = {0};
    if (group < UNIT) {
        memcpy(&its, numbers, sizeof *numbers * (UNIT / group));
        return group == 32 ? __builtin_shufflevector(its, its, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                           : __builtin_shufflevector(its, its, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    }
#elif LANES == 8
    if (group < UNIT)
        return __builtin_shufflevector((words){0} + numbers[0], (words){0} + numbers[1], 0, 1, 2, 3, 12, 13, 14, 15);
#endif
    (void)group;
    return (words){0} + *numbers;
}

/* Groups that begin in a unit. */
INLINE int groups_of(int group)
{
    return group < UNIT ? UNIT / group : 1;
}

/* The zeros of a unit's columns, of which `count` groups are there. */
INLINE shorts zeros_of(int group, const char *zeros, int count)
{
    uint32_t each[UNIT / 32] = {0};
    for (int i = 0; i < count; i++)
        each[i] = (uint8_t)zeros[i] * 0x00010001u;
    return (shorts)spread(group, each);
}

/* The first `columns` of a unit: its codes and its scales may be less than a vector. */
INLINE void add_unit(int group, int rows, const char *codes, int columns, const char *scales, const char *zeros,
                     const Span *x, int unit, floats *products)
{
    const int count = columns == UNIT ? groups_of(group) : (columns + group - 1) / group;
    uint32_t its_scales[UNIT / 32] = {0};
    words pairs = {0};
    memcpy(&pairs, codes, columns / 2);
    memcpy(its_scales, scales, sizeof *its_scales * count);
    floats scale = (floats)spread(group, its_scales);
    shorts zero = zeros_of(group, zeros, count);
    ints dots[MOST_ROWS] = {{0}};
    UNROLL
    for (int part = 0; part < PARTS; part++) {
        shorts its = (shorts)(pairs >> 4 * part & 0x000f000f) - zero;
        UNROLL
        for (int row = 0; row < rows; row++)
            dots[row] = add_pairs(dots[row], its, x[row].columns[PARTS * unit + part]);
    }
    UNROLL
    for (int row = 0; row < rows; row++)
        products[row] = multiply_add(scale, to_floats(dots[row]), products[row]);
}

INLINE void add_span(int group, int rows, const Weights *weights, int64_t out, int64_t column, int64_t columns,
                     const Span *x, floats *sums)
{
    const Int4Groups *its = weights->scales;
    const char *codes = weights->codes + weights->line * out + column / 2;
    const int64_t first = 2 * weights->line / group * out; /* the row's first group */
    floats products[MOST_ROWS] = {{0}};
    UNROLL
    for (int unit = 0; unit < SPAN / UNIT; unit++) {
        int64_t done = UNIT * unit, at = first + (column + done) / group;
        const char *scales = its->scales + sizeof(float) * at, *zeros = its->zeros + at;
        if (done + UNIT <= columns)
            add_unit(group, rows, codes + done / 2, UNIT, scales, zeros, x, unit, products);
        else if (done < columns)
            add_unit(group, rows, codes + done / 2, (int)(columns - done), scales, zeros, x, unit, products);
    }
    UNROLL
    for (int row = 0; row < rows; row++)
        sums[row] = multiply_add(every(x[row].scale), products[row], sums[row]);
}

BY_ROWS(SPAN_TILES, 32)
BY_ROWS(SPAN_TILES, 64)
BY_ROWS(SPAN_TILES, 128)

int64_t grouped_int4_line(Format format, int64_t ins)
{
    (void)format;
    return ins / 2;
}

void grouped_int4_sums(const Chunk *chunk, const char *x, int64_t rows, floats *sums)
{
    static SpanTiles *const ALL[][MOST_ROWS] = {
        {BY_ROWS(SPAN_TILES_NAME, 32)}, {BY_ROWS(SPAN_TILES_NAME, 64)}, {BY_ROWS(SPAN_TILES_NAME, 128)}};
    const Int4Groups *groups = chunk->matrix->scales;
    Weights weights = {chunk->matrix->weights, grouped_int4_line(GROUPED_INT4, chunk->ins), groups};
    ALL[groups->group / 64][rows - 1](&weights, (const Span *)x, chunk->ins, chunk->first, chunk->last, sums);
}

INLINE int column_of(int format, int place)
{
    (void)format;
    return place / (PARTS * STEP) * UNIT + PARTS * (place % STEP) + place / STEP % PARTS;
}

int64_t grouped_int4_row_size(Format format, int64_t ins)
{
    (void)format;
    return spans_size(ins);
}

void grouped_int4_pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    pack_spans(format, column_of, x, packed, rows, row, ins);
}
