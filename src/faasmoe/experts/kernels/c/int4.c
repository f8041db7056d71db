/* Products of weights in int4 (int4.h) with rows of x, which are brought to eight bits.
 *
 * Each group of x, the 32 columns that meet a group of weights, gets a scale of its own: its largest number is 127 or
 * -127. The products of two groups are summed as integers, which is exact, and times both scales they are added in
 * float32, lane by lane in the order of blocks. So a row's sums have the same bits whatever rows come with it.
 */
#include "int4.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define MOST_OUTS 2 /* weight rows in a tile */
#define MOST_ROWS 6 /* rows of x in a tile */
#define AHEAD 4096            /* bytes from what is read to what is fetched: the hardware stops at the end of a page */
#define CHUNK_BYTES (192 << 10) /* of weights that stay in the second cache while all rows of x pass */

/* LANES groups of one row of x. */
typedef struct {
    ints codes[2 * LINES]; /* four signed bytes a lane: what meets the lower and the upper halves of each line */
    floats scale;
    ints offset; /* -ZERO times the sum of the lane's codes */
} part;

static int64_t parts_of(int64_t groups)
{
    return (groups + LANES - 1) / LANES;
}

/* Add to each lane the products of four bytes: of `codes`, from 0 to 15, with `x`, from -127 to 127. */
INLINE ints add_dot(ints sum, words codes, ints x)
{
#if defined(__AVX512VNNI__)
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)x);
#elif defined(__AVX512BW__)
    __m512i pairs = _mm512_maddubs_epi16((__m512i)codes, (__m512i)x);
    return sum + (ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
    __m256i pairs = _mm256_maddubs_epi16((__m256i)codes, (__m256i)x);
    return sum + (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
    return (ints)vdotq_s32((int32x4_t)sum, (int8x16_t)codes, (int8x16_t)x);
#else
    typedef int16_t shorts __attribute__((vector_size(4 * LANES)));
    shorts even = (shorts)codes & 0xff, odd = (shorts)((words)codes >> 8) & 0xff;
    shorts pairs = even * ((shorts)x << 8 >> 8) + odd * ((shorts)x >> 8);
    return sum + ((ints)pairs << 16 >> 16) + ((ints)pairs >> 16);
#endif
}

/* A word for each of the first `lanes` lanes; 0 in the others. */
INLINE words load_words(const uint8_t *from, int64_t lanes)
{
    words loaded = {0};
    if (lanes >= LANES)
        memcpy(&loaded, from, sizeof loaded);
    else {
#ifdef __AVX512F__
        loaded = (words)_mm512_maskz_loadu_epi32((__mmask16)((1u << lanes) - 1), from);
#else
        memcpy(&loaded, from, 4 * lanes);
#endif
    }
    return loaded;
}

/* Scales of the first `lanes` lanes in float32; 0 in the others. */
INLINE floats load_scales(const bfloat16 *from, int64_t lanes)
{
    typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
    halves loaded = {0};
    if (lanes >= LANES)
        memcpy(&loaded, from, sizeof loaded);
    else {
#ifdef __AVX512BW__
        loaded = (halves)_mm256_maskz_loadu_epi16((__mmask16)((1u << lanes) - 1), from);
#else
        memcpy(&loaded, from, 2 * lanes);
#endif
    }
    return (floats)(__builtin_convertvector(loaded, words) << 16);
}

/* Rows of weights, from one on. */
typedef struct {
    const uint8_t *codes;
    const bfloat16 *scales;
    int64_t groups; /* of a row */
} weight_rows;

/* Add the products of `lanes` groups, from `group` on, of `outs` weight rows and `rows` rows of x. */
INLINE void add_part(const int outs, const int rows, weight_rows w, int64_t group, word_places places, int64_t lanes,
                     const part *x, floats totals[MOST_OUTS][MOST_ROWS])
{
    ints dots[MOST_OUTS][MOST_ROWS];
    for (int out = 0; out < outs; out++)
        for (int row = 0; row < rows; row++)
            dots[out][row] = x[row].offset;
    for (int line = 0; line < LINES; line++)
        for (int out = 0; out < outs; out++) {
            words pairs = load_words(w.codes + GROUP / 2 * w.groups * out + places.first + places.line * line, lanes);
            words low = pairs & 0x0f0f0f0f, high = pairs >> 4 & 0x0f0f0f0f;
            for (int row = 0; row < rows; row++) {
                dots[out][row] = add_dot(dots[out][row], low, x[row].codes[2 * line]);
                dots[out][row] = add_dot(dots[out][row], high, x[row].codes[2 * line + 1]);
            }
        }
    for (int out = 0; out < outs; out++) {
        floats scale = load_scales(w.scales + w.groups * out + group, lanes);
        for (int row = 0; row < rows; row++)
            totals[out][row] += scale * x[row].scale * __builtin_convertvector(dots[out][row], floats);
    }
}

INLINE float total(floats values)
{
    float lanes[LANES];
    memcpy(lanes, &values, sizeof lanes);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

/* Sums of `outs` weight rows and `rows` rows of x, to `sums`, whose rows are `stride` apart. */
INLINE void tile(const int outs, const int rows, weight_rows w, const part *x, float *sums, int64_t stride)
{
    floats totals[MOST_OUTS][MOST_ROWS] = {0};
    int64_t group = 0, whole = w.groups / BLOCK * BLOCK;
    for (; group < whole; group += BLOCK) {
        word_places places = {GROUP / 2 * group, 4 * BLOCK};
        for (int out = 0; out < outs; out++) {
            const uint8_t *ahead = w.codes + GROUP / 2 * (w.groups * out + group) + AHEAD;
            for (int line = 0; line < LINES; line++)
                __builtin_prefetch(ahead + 4 * BLOCK * line);
            __builtin_prefetch((const uint8_t *)(w.scales + w.groups * out + group) + AHEAD / 8);
        }
        for (int lane = 0; lane < BLOCK; lane += LANES, x += rows, places.first += 4 * LANES)
            add_part(outs, rows, w, group + lane, places, LANES, x, totals);
    }
    for (; group < w.groups; group += LANES, x += rows)
        add_part(outs, rows, w, group, places_of(w.groups, group), w.groups - group, x, totals);
    for (int out = 0; out < outs; out++)
        for (int row = 0; row < rows; row++)
            sums[stride * row + out] = total(totals[out][row]);
}

/* Two weight rows at a time share loads of x; a single row of x needs all of memory's speed for one stream. */
INLINE void tiles(const int rows, weight_rows w, int64_t outs, const part *x, float *sums, int64_t stride)
{
    int64_t out = 0, line = GROUP / 2 * w.groups;
    if (rows > 1)
        for (; out + 2 <= outs; out += 2, w.codes += 2 * line, w.scales += 2 * w.groups)
            tile(2, rows, w, x, sums + out, stride);
    for (; out < outs; out++, w.codes += line, w.scales += w.groups)
        tile(1, rows, w, x, sums + out, stride);
}

static void some_rows(int64_t rows, weight_rows w, int64_t outs, const part *x, float *sums, int64_t stride)
{
    switch (rows) {
    case 1: tiles(1, w, outs, x, sums, stride); break;
    case 2: tiles(2, w, outs, x, sums, stride); break;
    case 3: tiles(3, w, outs, x, sums, stride); break;
    case 4: tiles(4, w, outs, x, sums, stride); break;
    case 5: tiles(5, w, outs, x, sums, stride); break;
    default: tiles(MOST_ROWS, w, outs, x, sums, stride);
    }
}

/* Sums of a matrix's rows with all rows of x, to float32 `sums` [rows, outs].
 *
 * `codes` and `scales` are the matrix's [outs, ins], `x` is what `int4_pack` made of [rows, ins]. */
EXPORT void int4_products(const uint8_t *codes, const bfloat16 *scales, const void *x, int64_t rows, int64_t outs,
                          int64_t ins, float *sums)
{
    int64_t groups = ins / GROUP, line = GROUP / 2 * groups;
    int64_t chunk = rows <= MOST_ROWS ? outs : (CHUNK_BYTES / line / MOST_OUTS + 1) * MOST_OUTS;
    for (int64_t out = 0; out < outs; out += chunk) {
        int64_t count = outs - out < chunk ? outs - out : chunk;
        weight_rows w = {codes + line * out, scales + groups * out, groups};
        for (int64_t row = 0; row < rows; row += MOST_ROWS) {
            int64_t its = rows - row < MOST_ROWS ? rows - row : MOST_ROWS;
            some_rows(its, w, count, (const part *)x + parts_of(groups) * row, sums + outs * row + out, outs);
        }
    }
}

/* The 32 numbers of one group of x, as one lane of a part. A group that is not finite gets a scale that is not. */
INLINE void pack_group(const bfloat16 *x, part *to, int lane)
{
    bfloat16 largest = 0;
    for (int i = 0; i < GROUP; i++) {
        bfloat16 size = x[i] & 0x7fff;
        largest = size > largest ? size : largest;
    }
    float most = widen(largest), inverse = 0;
    if (most > 1e-36f && largest < 0x7f80) /* else it would overflow, or the scale tells all */
        inverse = 127 / most;
    int8_t codes[GROUP];
    int32_t sum = 0;
    for (int i = 0; i < GROUP; i++) {
        float rounded = (inverse ? widen(x[i]) * inverse : 0) + ROUNDER;
        uint32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        codes[i] = (int8_t)bits;
        sum += codes[i];
    }
    for (int i = 0; i < 2 * LINES; i++)
        memcpy((int32_t *)&to->codes[i] + lane, codes + 4 * i, 4);
    ((float *)&to->scale)[lane] = most / 127;
    ((int32_t *)&to->offset)[lane] = -ZERO * sum;
}

/* Room that packed rows take, in bytes. It should begin at a multiple of 64. */
EXPORT int64_t int4_packed_bytes(int64_t rows, int64_t ins)
{
    return rows * parts_of(ins / GROUP) * (int64_t)sizeof(part);
}

/* bfloat16 `x` [rows, ins] in eight bits, as `int4_products` reads it. */
EXPORT void int4_pack(const bfloat16 *x, int64_t rows, int64_t ins, part *packed)
{
    int64_t groups = ins / GROUP, parts = parts_of(groups);
    for (int64_t row = 0; row < rows; row++) {
        int64_t first = row / MOST_ROWS * MOST_ROWS; /* of the rows of its tile, which alternate part by part */
        int64_t count = rows - first < MOST_ROWS ? rows - first : MOST_ROWS;
        part *to = packed + parts * first + row - first;
        memset(to + count * (parts - 1), 0, sizeof *to);
        for (int64_t group = 0; group < groups; group++, x += GROUP)
            pack_group(x, to + group / LANES * count, group % LANES);
    }
}
