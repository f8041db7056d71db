/* Products of weights in int4 and int6 (int4_order.h) with rows of x, which are brought to eight bits.
 *
 * Each group of x, the 32 columns that meet a group of weights, gets a scale of its own: its largest number is 127 or
 * -127. The products of two groups are summed as integers, and what the weights' zero makes of them is taken off; both
 * are exact. Times both scales they are added in float32, lane by lane in the order of blocks. So a row's sums have the
 * same bits whatever rows come with it.
 */
#include "formats/int4.h"

#include "formats/int4_order.h"

/* Bytes from the weights that are read to those that are fetched, to the second cache: for up to FEW_ROWS rows of x, or
 * more. With 8192 two rows took twice as long where weight rows are no whole number of cache lines.
 */
enum { FEW_ROWS = 4, NEAR_AHEAD = 1024, FAR_AHEAD = 8192 };

/* LANES groups of one row of x. */
typedef struct {
    ints codes[2 * LINES]; /* four signed bytes a lane: what meets the lower and the upper halves of each line */
    floats scale;
    floats excess; /* what a zero of 256 makes of the products too little: the sum of the lane's codes, negative */
} part;

INLINE int bits_of(Format format)
{
    return format == INT6 ? 6 : 4;
}

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
#elif defined(__x86_64__)
    __m128i even = _mm_and_si128((__m128i)codes, _mm_set1_epi16(0xff)), odd = _mm_srli_epi16((__m128i)codes, 8);
    sum += (ints)_mm_madd_epi16(even, _mm_srai_epi16(_mm_slli_epi16((__m128i)x, 8), 8));
    return sum + (ints)_mm_madd_epi16(odd, _mm_srai_epi16((__m128i)x, 8));
#else
    shorts even = (shorts)codes & 0xff, odd = (shorts)((words)codes >> 8) & 0xff;
    shorts pairs = even * ((shorts)x << 8 >> 8) + odd * ((shorts)x >> 8);
    return sum + ((ints)pairs << 16 >> 16) + ((ints)pairs >> 16);
#endif
}

#ifndef __AVX512F__
/* Copy `lanes` numbers, less than LANES, each of `width` bytes. Sizes that the compiler knows make no calls. */
INLINE void copy_some(void *to, const void *from, int width, int64_t lanes)
{
    UNROLL
    for (int count = 1; count < LANES; count++)
        if (lanes == count)
            memcpy(to, from, width * count);
}
#endif

/* A word for each of the first `lanes` lanes; 0 in the others. What lies behind them may be no memory of ours. */
INLINE words load_words(const uint8_t *from, int64_t lanes)
{
    words loaded = {0};
    if (lanes >= LANES)
        memcpy(&loaded, from, sizeof loaded);
    else
#ifdef __AVX512F__
        loaded = (words)_mm512_maskz_loadu_epi32((__mmask16)((1u << lanes) - 1), from);
#else
        copy_some(&loaded, from, 4, lanes);
#endif
    return loaded;
}

/* The bytes of the first `lanes` groups, the zero in the lower half of a lane's lower half; 0 in the other lanes. */
INLINE words load_scales(const uint8_t *from, int64_t lanes)
{
    typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
    halves loaded = {0};
    if (lanes >= LANES)
        memcpy(&loaded, from, sizeof loaded);
    else
#ifdef __AVX512F__
        loaded = (halves)_mm256_maskz_loadu_epi16((__mmask16)((1u << lanes) - 1), from);
#else
        copy_some(&loaded, from, 2, lanes);
#endif
    return __builtin_convertvector(loaded, words);
}

/* Four codes of each of `lanes` groups, from the code 4 * `four` on, as unsigned bytes. */
INLINE words load_codes(const int bits, const uint8_t *row, Block block, int64_t lane, int64_t lanes, int four)
{
    words pairs = load_words(row + word_place(block, four / 2, lane), lanes);
    words codes = pairs >> four % 2 * 4 & 0x0f0f0f0f;
    if (bits == 4)
        return codes;
    words upper = load_words(row + word_place(block, LINES + four / 4, lane), lanes);
    int left = 4 - four % 4 * 2;
    return codes | ((left > 0 ? upper << left : upper >> -left) & 0x30303030);
}

/* Add the products of `lanes` groups of a block, from `lane` on, with `rows` rows of x. */
INLINE void add_part(const int bits, const int rows, const uint8_t *row, Block block, int64_t lane, int64_t lanes,
                     const part *x, floats *totals)
{
    ints dots[MOST_ROWS] = {{0}};
    UNROLL
    for (int four = 0; four < 2 * LINES; four++) {
        words codes = load_codes(bits, row, block, lane, lanes, four);
        UNROLL
        for (int i = 0; i < rows; i++)
            dots[i] = add_dot(dots[i], codes, x[i].codes[four]);
    }
    words bytes = load_scales(row + scale_place(block, lane), lanes);
    floats zero = __builtin_convertvector((ints)((bytes & 0xff) << bits), floats);
    floats scale = (floats)((bytes >> 8 << SCALE_BITS) + SCALE_BIAS(bits));
    UNROLL
    for (int i = 0; i < rows; i++) {
        floats dot = multiply_add(zero, x[i].excess, __builtin_convertvector(dots[i], floats)); /* exact */
        totals[i] = multiply_add(scale * x[i].scale, dot, totals[i]);
    }
}

/* Sums of one weight row of so many groups with `rows` rows of x. */
INLINE void tile_row(const int bits, const int rows, const uint8_t *row, int64_t groups, const part *x, floats *sums)
{
    floats totals[MOST_ROWS] = {{0}};
    const int64_t bytes = BLOCK * group_bytes(bits), ahead = rows > FEW_ROWS ? FAR_AHEAD : NEAR_AHEAD;
    Block block = {0, BLOCK};
    for (; groups >= BLOCK; groups -= BLOCK, block.at += bytes) {
        UNROLL
        for (int64_t at = 0; rows > 1 && at < bytes; at += CACHE_LINE)
            __builtin_prefetch(row + block.at + at + ahead, 0, 2);
        for (int lane = 0; lane < BLOCK; lane += LANES, x += rows)
            add_part(bits, rows, row, block, lane, LANES, x, totals);
    }
    block.width = groups;
    for (int64_t lane = 0; lane < groups; lane += LANES, x += rows)
        add_part(bits, rows, row, block, lane, groups - lane, x, totals);
    for (int i = 0; i < rows; i++)
        sums[i] = totals[i];
}

/* One weight row at a time: several are several streams, which memory gives more slowly, and no faster from caches. */
INLINE void tiles(const int bits, const int rows, const uint8_t *row, int64_t groups, int64_t outs, const part *x,
                  floats *sums)
{
    for (; outs > 0; outs--, row += group_bytes(bits) * groups, sums += rows)
        tile_row(bits, rows, row, groups, x, sums);
}

typedef void Tiles(const uint8_t *row, int64_t groups, int64_t outs, const part *x, floats *sums);

#define TILES(bits, rows)                                                                                              \
    static void tiles_##bits##_##rows(const uint8_t *row, int64_t groups, int64_t outs, const part *x, floats *sums)   \
    {                                                                                                                  \
        tiles(bits, rows, row, groups, outs, x, sums);                                                                 \
    }
#define NAME(bits, rows) tiles_##bits##_##rows,
BY_ROWS(TILES, 4)
BY_ROWS(TILES, 6)
static Tiles *const ALL[][MOST_ROWS] = {{BY_ROWS(NAME, 4)}, {BY_ROWS(NAME, 6)}};

void int4_sums(const Chunk *chunk, const char *x, int64_t rows, floats *sums)
{
    const Matrix *matrix = chunk->matrix;
    const uint8_t *row = (const uint8_t *)matrix->weights + int4_line(matrix->format, chunk->ins) * chunk->first;
    Tiles *run = ALL[matrix->format == INT6][rows - 1];
    run(row, chunk->ins / GROUP, chunk->last - chunk->first, (const part *)x, sums);
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
        codes[i] = (int8_t)nearest_whole(inverse ? widen(x[i]) * inverse : 0);
        sum += codes[i];
    }
    for (int i = 0; i < 2 * LINES; i++)
        memcpy((int32_t *)&to->codes[i] + lane, codes + 4 * i, 4);
    ((float *)&to->scale)[lane] = most / 127;
    ((float *)&to->excess)[lane] = (float)-sum / 256;
}

int64_t int4_line(Format format, int64_t ins)
{
    return ins / GROUP * group_bytes(bits_of(format));
}

int64_t int4_row_size(Format format, int64_t ins)
{
    (void)format;
    return parts_of(ins / GROUP) * (int64_t)sizeof(part);
}

void int4_pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    (void)format;
    int64_t groups = ins / GROUP;
    part *to = (part *)packed + row; /* rows of a tile alternate part by part */
    memset(to + rows * (parts_of(groups) - 1), 0, sizeof *to);
    for (int64_t group = 0; group < groups; group++)
        pack_group((const bfloat16 *)x + GROUP * group, to + group / LANES * rows, group % LANES);
}
