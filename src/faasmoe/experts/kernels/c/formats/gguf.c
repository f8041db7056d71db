/* Products of weights in GGUF's formats (ggml-common.h of ggml has the layouts) with rows of x in whole numbers.
 *
 * Codes of Q4_K and Q6_K are multiplied by their group's scale, which is a whole number as well, before they meet x:
 * once for all rows of x, and so that only a block's float16 is left for the sums. A unit is a vector of bytes with
 * codes in both halves of each. Its four parts are the lower halves of even bytes, those of odd bytes, and the upper
 * halves likewise; x is laid out in that order.
 */
#include "formats/gguf.h"

#include "formats/whole.h"

enum {
    Q8_WEIGHTS = 32, /* of a block of Q8_0 or MXFP4 */
    Q8_BYTES = 34,
    Q4K_BYTES = 144,
    Q6K_BYTES = 210,
    MXFP4_BYTES = 17, /* of 32 weights, as Q8_BYTES */
    UNITS = SPAN / 2 / VECTOR, /* vectors of bytes that hold the lower four bits of a block of 256 */
    QUARTER = 32,              /* weights of such a block that lie byte by byte */
};

typedef int8_t sixteen_bytes __attribute__((vector_size(16)));
#define EIGHT(number) number, number, number, number, number, number, number, number

INLINE float half_at(const char *address)
{
    uint16_t half;
    memcpy(&half, address, sizeof half);
#if defined(__F16C__)
    return _cvtsh_ss(half);
#else
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    float size;
    memcpy(&size, &bits, sizeof size);
    size *= 0x1p112f;
    memcpy(&bits, &size, sizeof bits);
    if ((half & 0x7c00) == 0x7c00) /* an infinity, or no number */
        bits = 0x7f800000 | (uint32_t)(half & 0x3ff) << 13;
    bits |= sign;
    memcpy(&size, &bits, sizeof size);
    return size;
#endif
}

/* Half of 2^(exponent - 127), as ggml reads e8m0: 255 is a number like the others. */
INLINE float half_of_e8m0(uint8_t exponent)
{
    uint32_t bits = exponent < 2 ? 0x00200000u << exponent : (uint32_t)(exponent - 1) << 23;
    float half;
    memcpy(&half, &bits, sizeof half);
    return half;
}

/* Twice the numbers of a block's 32 codes in e2m1: the lower halves of its 16 bytes, then the upper ones. */
INLINE void twice_e2m1(const char *bytes, int8_t *numbers)
{
    static const _Alignas(16) int8_t TWICE[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
#if defined(__SSSE3__)
    __m128i codes = _mm_loadu_si128((const __m128i *)bytes), table = _mm_load_si128((const __m128i *)TWICE);
    __m128i four_bits = _mm_set1_epi8(15), upper = _mm_and_si128(_mm_srli_epi16(codes, 4), four_bits);
    _mm_storeu_si128((__m128i *)numbers, _mm_shuffle_epi8(table, _mm_and_si128(codes, four_bits)));
    _mm_storeu_si128((__m128i *)(numbers + 16), _mm_shuffle_epi8(table, upper));
#elif defined(__aarch64__)
    uint8x16_t codes = vld1q_u8((const uint8_t *)bytes);
    int8x16_t table = vld1q_s8(TWICE);
    vst1q_s8(numbers, vqtbl1q_s8(table, vandq_u8(codes, vdupq_n_u8(15))));
    vst1q_s8(numbers + 16, vqtbl1q_s8(table, vshrq_n_u8(codes, 4)));
#else
    for (int i = 0; i < 16; i++) {
        numbers[i] = TWICE[bytes[i] & 15];
        numbers[16 + i] = TWICE[(uint8_t)bytes[i] >> 4];
    }
#endif
}

/* Add what a span of Q8_0 or MXFP4 gives, up to eight blocks of 32 codes, to `sums` [rows]. */
INLINE void add_blocks_of_32(int format, int rows, const char *w, int64_t columns, const Span *x, floats *sums)
{
    enum { STEPS = Q8_WEIGHTS / STEP };
    const int bytes = format == Q8_0 ? Q8_BYTES : MXFP4_BYTES;
    floats products[MOST_ROWS] = {{0}};
    for (int64_t block = 0; block < columns / Q8_WEIGHTS; block++, w += bytes) {
        int8_t numbers[Q8_WEIGHTS];
        const char *its = format == Q8_0 ? w + 2 : (const char *)numbers;
        if (format == GGUF_MXFP4)
            twice_e2m1(w + 1, numbers);
        floats scale = every(format == Q8_0 ? half_at(w) : half_of_e8m0((uint8_t)*w));
        ints dots[MOST_ROWS] = {{0}};
        UNROLL
        for (int step = 0; step < STEPS; step++) {
            shorts codes = widen_bytes(its + STEP * step);
            UNROLL
            for (int row = 0; row < rows; row++)
                dots[row] = add_pairs(dots[row], codes, x[row].columns[STEPS * block + step]);
        }
        UNROLL
        for (int row = 0; row < rows; row++)
            products[row] = multiply_add(scale, to_floats(dots[row]), products[row]);
    }
    UNROLL
    for (int row = 0; row < rows; row++)
        sums[row] = multiply_add(every(x[row].scale), products[row], sums[row]);
}

/* Sixteen scales, in the lowest lanes where one register holds them all. */
typedef struct {
#ifdef __AVX512BW__
    shorts all;
#else
    int16_t all[16];
#endif
} BlockScales;

INLINE BlockScales widen_scales(sixteen_bytes scales)
{
    typedef int16_t sixteen_shorts __attribute__((vector_size(32)));
    sixteen_shorts wide = __builtin_convertvector(scales, sixteen_shorts);
    BlockScales found = {0};
    memcpy(&found, &wide, sizeof wide);
    return found;
}

/* The scales of a unit's codes: group `first` has its first 32 bytes if `twice`, else 16, and so on. */
INLINE shorts spread(BlockScales scales, int first, bool twice)
{
#ifdef __AVX512BW__
    const shorts ones = {EIGHT(0), EIGHT(1), EIGHT(2), EIGHT(3)}, twos = {EIGHT(0), EIGHT(0), EIGHT(2), EIGHT(2)};
    shorts groups = (twice ? twos : ones) + (int16_t)first;
    return (shorts)_mm512_permutexvar_epi16((__m512i)groups, (__m512i)scales.all);
#else
    shorts found = (shorts){0} + scales.all[first];
#if LANES == 8
    shorts next = (shorts){0} + scales.all[first + 1];
    if (!twice)
        found = __builtin_shufflevector(found, next, 0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31);
#else
    (void)twice; /* no unit has two groups */
#endif
    return found;
#endif
}

/* Add the products of a unit's codes, less `zero` and times their groups' scales. */
INLINE void add_unit(int rows, words low, words high, shorts low_scales, shorts high_scales, int zero, int unit,
                     const Span *x, ints *dots)
{
    shorts codes[4] = {(shorts)(low & 0x00ff00ff), (shorts)(low >> 8 & 0x00ff00ff), (shorts)(high & 0x00ff00ff),
                       (shorts)(high >> 8 & 0x00ff00ff)};
    UNROLL
    for (int part = 0; part < 4; part++) {
        shorts scaled = (codes[part] - (int16_t)zero) * (part < 2 ? low_scales : high_scales);
        UNROLL
        for (int row = 0; row < rows; row++)
            dots[row] = add_pairs(dots[row], scaled, x[row].columns[4 * unit + part]);
    }
}

/* The six bits of eight scales, a byte each, and of eight minimums (`formats/gguf/q4_k.py`). */
INLINE void six_bits(const char *packed, uint64_t *scales, uint64_t *minimums)
{
    uint32_t low, high, rest;
    memcpy(&low, packed, 4);
    memcpy(&high, packed + 4, 4);
    memcpy(&rest, packed + 8, 4);
    uint32_t upper_scales = (rest & 0x0f0f0f0f) | (low >> 2 & 0x30303030);
    uint32_t upper_minimums = (rest >> 4 & 0x0f0f0f0f) | (high >> 2 & 0x30303030);
    *scales = (low & 0x3f3f3f3f) | (uint64_t)upper_scales << 32;
    *minimums = (high & 0x3f3f3f3f) | (uint64_t)upper_minimums << 32;
}

/* Part number `part` of bytes, LANES of them. */
INLINE floats widen_part(sixteen_bytes bytes, int part)
{
    typedef int8_t some_bytes __attribute__((vector_size(LANES)));
    some_bytes its;
    memcpy(&its, (const char *)&bytes + LANES * part, sizeof its);
    return to_floats(__builtin_convertvector(its, ints));
}

/* Add what a block of Q4_K gives. Its sums stay below 2^31: 64 products of 15 * 63 and 2^15 in a lane at most. */
INLINE void add_q4_k(int rows, const char *w, const Span *x, floats *sums)
{
    typedef uint64_t two_longs __attribute__((vector_size(16)));
    uint64_t its_scales, minimums;
    six_bits(w + 4, &its_scales, &minimums);
    BlockScales scales = widen_scales((sixteen_bytes)(two_longs){its_scales, 0});
    ints dots[MOST_ROWS] = {{0}};
    UNROLL
    for (int unit = 0; unit < UNITS; unit++) {
        words bytes = (words)load(w + 16 + VECTOR * unit);
        int group = VECTOR * unit / QUARTER * 2;
        add_unit(rows, bytes & 0x0f0f0f0f, bytes >> 4 & 0x0f0f0f0f, spread(scales, group, true),
                 spread(scales, group + 1, true), 0, unit, x, dots);
    }
    floats scale = every(half_at(w)), least = every(-half_at(w + 2)), lowest[SUM_VECTORS];
    UNROLL
    for (int i = 0; i < SUM_VECTORS; i++)
        lowest[i] = least * widen_part((sixteen_bytes)(two_longs){minimums, 0}, i);
    UNROLL
    for (int row = 0; row < rows; row++) {
        floats products = scale * to_floats(dots[row]);
        UNROLL
        for (int i = 0; i < SUM_VECTORS; i++)
            products = multiply_add(lowest[i], x[row].sums[i], products);
        sums[row] = multiply_add(every(x[row].scale), products, sums[row]);
    }
}

/* The upper two bits of a unit's codes: a byte's lowest two for its lower half, and bits 4 and 5 for its upper half. */
INLINE words upper_bits(const char *bytes, int unit)
{
#if LANES == 16
    words both = (words)_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(bytes + QUARTER * unit)));
    return both >> (words){0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2};
#else
    int place = VECTOR * unit; /* among the bytes of lower bits, of which 64 share 32 of upper bits */
    return (words)load(bytes + place / 64 * QUARTER + place % QUARTER) >> place % 64 / QUARTER * 2;
#endif
}

/* Add what a block of Q6_K gives. The sums of two units stay below 2^31: 16 products of 2^12 and 2^15 - 1 in a lane. */
INLINE void add_q6_k(int rows, const char *w, const Span *x, floats *sums)
{
    sixteen_bytes packed;
    memcpy(&packed, w + 192, sizeof packed);
    BlockScales scales = widen_scales(packed);
    floats products[MOST_ROWS] = {{0}};
    UNROLL
    for (int pair = 0; pair < UNITS; pair += 2) {
        ints dots[MOST_ROWS] = {{0}};
        UNROLL
        for (int unit = pair; unit < pair + 2; unit++) {
            words bytes = (words)load(w + VECTOR * unit), upper = upper_bits(w + 128, unit);
            int place = VECTOR * unit, group = place / 64 * 8 + place % 64 / 16;
            add_unit(rows, (bytes & 0x0f0f0f0f) | (upper << 4 & 0x30303030),
                     (bytes >> 4 & 0x0f0f0f0f) | (upper & 0x30303030), spread(scales, group, false),
                     spread(scales, group + 4, false), 32, unit, x, dots);
        }
        UNROLL
        for (int row = 0; row < rows; row++)
            products[row] += to_floats(dots[row]);
    }
    floats scale = every(half_at(w + 208));
    UNROLL
    for (int row = 0; row < rows; row++)
        sums[row] = multiply_add(scale * x[row].scale, products[row], sums[row]);
}

INLINE int64_t bytes_of(int format, int64_t columns)
{
    if (format == Q8_0 || format == GGUF_MXFP4)
        return columns / Q8_WEIGHTS * (format == Q8_0 ? Q8_BYTES : MXFP4_BYTES);
    return columns / SPAN * (format == Q4_K ? Q4K_BYTES : Q6K_BYTES);
}

INLINE void add_span(int format, int rows, const Weights *weights, int64_t out, int64_t column, int64_t columns,
                     const Span *x, floats *sums)
{
    const char *w = weights->codes + weights->line * out + bytes_of(format, column);
    if (format == Q8_0 || format == GGUF_MXFP4)
        add_blocks_of_32(format, rows, w, columns, x, sums);
    else if (format == Q4_K)
        add_q4_k(rows, w, x, sums);
    else
        add_q6_k(rows, w, x, sums);
}

BY_ROWS(SPAN_TILES, Q8_0)
BY_ROWS(SPAN_TILES, Q4_K)
BY_ROWS(SPAN_TILES, Q6_K)
BY_ROWS(SPAN_TILES, GGUF_MXFP4)
static SpanTiles *const ALL[][MOST_ROWS] = {
    {BY_ROWS(SPAN_TILES_NAME, Q8_0)}, {BY_ROWS(SPAN_TILES_NAME, Q4_K)}, {BY_ROWS(SPAN_TILES_NAME, Q6_K)},
    {BY_ROWS(SPAN_TILES_NAME, GGUF_MXFP4)}};

int64_t gguf_line(Format format, int64_t ins)
{
    return bytes_of(format, ins);
}

void gguf_sums(const Chunk *chunk, const char *x, int64_t rows, floats *sums)
{
    Format format = chunk->matrix->format;
    Weights all = {chunk->matrix->weights, gguf_line(format, chunk->ins), NULL};
    ALL[format - Q8_0][rows - 1](&all, (const Span *)x, chunk->ins, chunk->first, chunk->last, sums);
}

/* The column whose code comes out of a format's bytes at place `place`. */
INLINE int column_of(int format, int place)
{
    if (format == Q8_0 || format == GGUF_MXFP4)
        return place;
    int part = place / STEP % 4, byte = place / (4 * STEP) * VECTOR + 2 * (place % STEP) + part % 2;
    int run = format == Q4_K ? QUARTER : 2 * QUARTER; /* bytes whose upper halves' columns follow their lower ones' */
    return byte / run * 2 * run + part / 2 * run + byte % run;
}

int64_t gguf_row_size(Format format, int64_t ins)
{
    (void)format;
    return spans_size(ins);
}

void gguf_pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    pack_spans(format, column_of, x, packed, rows, row, ins);
}
