/* Weights to int4 and int6 (int4_order.h) and back. */
#include "formats/int4_order.h"

#include "base/vectors.h"

enum { VECTORS = GROUP / LANES, TRIALS = 13 };
static const float FEWER = 2.4f, MORE = 0.3f; /* than all codes are those of the first trial; the next one's more */

/* A group as a trial has it: its two bytes, and its codes. */
typedef struct {
    uint8_t zero, scale;
    floats codes[VECTORS];
} trial;

INLINE float highest_code(int bits)
{
    return (float)((1 << bits) - 1);
}

/* How many parts of a code a zero counts. */
INLINE float parts_of_code(int bits)
{
    return (float)(1 << (8 - bits));
}

/* The nearest codes. */
INLINE floats codes_of(int bits, floats values)
{
    floats low = {0}, high = low + highest_code(bits);
    values = choose(values < low, low, values);
    values = choose(values > high, high, values);
    return (values + ROUNDER) - ROUNDER;
}

static float scale_of(int bits, uint8_t byte)
{
    uint32_t its = ((uint32_t)byte << SCALE_BITS) + SCALE_BIAS(bits);
    float scale;
    memcpy(&scale, &its, sizeof scale);
    return scale;
}

static uint8_t nearest_scale(int bits, float scale)
{
    int32_t its;
    memcpy(&its, &scale, sizeof its);
    int32_t byte = (its - SCALE_BIAS(bits) + (1 << (SCALE_BITS - 1))) >> SCALE_BITS;
    return (uint8_t)(scale <= 0 || byte < 0 ? 0 : byte > 255 ? 255 : byte);
}

static uint8_t nearest_zero(int bits, float zero)
{
    float parts = zero * parts_of_code(bits) + 0.5f, most = highest_code(bits) * parts_of_code(bits);
    return (uint8_t)(parts < 0 ? 0 : parts > most ? most : parts);
}

/* Spread the group, whose smallest number is `low`, over its codes by steps of `step`. The scale and the zero that are
 * kept are the best for these codes (by least squares), and then the codes the nearest for them. Returns the squared
 * error. */
INLINE float try_step(int bits, const floats *weights, float low, float step, trial *result)
{
    floats ones = {0}, squares = {0}, products = {0}, sums = {0}, error = {0};
    for (int i = 0; i < VECTORS; i++) {
        floats codes = codes_of(bits, (weights[i] - low) * (1 / step));
        ones += codes;
        squares += codes * codes;
        products += codes * weights[i];
        sums += weights[i];
    }
    float one = sum(ones), all = sum(sums), spread = GROUP * sum(squares) - one * one;
    result->scale = nearest_scale(bits, spread > 0 ? (GROUP * sum(products) - one * all) / spread : step);
    float scale = scale_of(bits, result->scale);
    result->zero = nearest_zero(bits, (one - all / scale) / GROUP);
    float zero = (float)result->zero / parts_of_code(bits);
    for (int i = 0; i < VECTORS; i++) {
        result->codes[i] = codes_of(bits, weights[i] * (1 / scale) + zero);
        floats off = (result->codes[i] - zero) * scale - weights[i];
        error += off * off;
    }
    return sum(error);
}

/* The smallest and the largest number of a group, and 0. */
static void range_of(const float *weights, float *low, float *high)
{
    *low = *high = 0;
    for (int i = 0; i < GROUP; i++) {
        *low = weights[i] < *low ? weights[i] : *low;
        *high = weights[i] > *high ? weights[i] : *high;
    }
}

/* The best of several trials for a group of numbers that were divided by the row's scale. */
INLINE trial best_trial(int bits, const float *weights)
{
    floats loaded[VECTORS];
    float low, high, least = 0;
    trial best = {1 << 7, 0, {{0}}}, next;
    memcpy(loaded, weights, sizeof loaded);
    range_of(weights, &low, &high);
    for (int i = 0; i < VECTORS; i++)
        best.codes[i] += (float)(1 << (bits - 1)); /* where the zero is */
    for (int i = 0; i < TRIALS && high > low; i++) {
        float step = (high - low) / (highest_code(bits) - FEWER + MORE * i);
        float error = try_step(bits, loaded, low, step, &next);
        if (i == 0 || error < least) {
            least = error;
            best = next;
        }
    }
    return best;
}

/* Lay out a group in its row, whose bytes were all 0. */
INLINE void lay_out(int bits, const trial *group, Block block, int64_t lane, uint8_t *row)
{
    row[scale_place(block, lane)] = group->zero;
    row[scale_place(block, lane) + 1] = group->scale;
    for (int i = 0; i < GROUP; i++) {
        int code = (int)group->codes[i / LANES][i % LANES];
        row[word_place(block, i / 8, lane) + i % 4] |= (uint8_t)((code & 15) << i % 8 / 4 * 4);
        if (bits > 4)
            row[word_place(block, LINES + i / 16, lane) + i % 4] |= (uint8_t)(code >> 4 << i % 16 / 4 * 2);
    }
}

/* The row's scale: the smallest with which no trial's step is too large for a group's; 0 for a row of zeros. */
static float row_scale(int bits, const float *weights, int64_t groups)
{
    float most = 0, low, high, fewest = highest_code(bits) - FEWER;
    for (int64_t i = 0; i < GROUP * groups; i++)
        if (weights[i] - weights[i] != 0)
            return weights[i] - weights[i]; /* nan: it is not finite */
    for (int64_t group = 0; group < groups; group++) {
        range_of(weights + GROUP * group, &low, &high);
        float range = high / fewest - low / fewest; /* apart, so that it is finite */
        most = range > most ? range : most;
    }
    return most > 1e-30f ? most / scale_of(bits, 255) : 0;
}

/* One row. Returns its scale. */
INLINE float convert_row(int bits, const float *weights, int64_t groups, uint8_t *row)
{
    float scale = row_scale(bits, weights, groups), inverse = scale > 0 ? 1 / scale : 0;
    memset(row, 0, group_bytes(bits) * groups);
    for (int64_t group = 0; group < groups; group++, weights += GROUP) {
        float divided[GROUP];
        for (int i = 0; i < GROUP; i++)
            divided[i] = inverse > 0 ? weights[i] * inverse : 0;
        trial best = best_trial(bits, divided);
        lay_out(bits, &best, block_of(bits, groups, group), group % BLOCK, row);
    }
    return scale;
}

/* float32 `weights` [rows, ins] in 4 or 6 bits: to `to` and `scales` [rows], as int4_order.h says. A row's scale is no
 * number if one of its weights is not finite. */
EXPORT void int4_convert(const float *weights, int64_t rows, int64_t ins, int64_t bits, uint8_t *to, float *scales)
{
    int64_t groups = ins / GROUP;
    for (int64_t row = 0; row < rows; row++, weights += ins, to += group_bytes((int)bits) * groups)
        scales[row] = bits == 4 ? convert_row(4, weights, groups, to) : convert_row(6, weights, groups, to);
}

/* The 32 weights of a group. */
static void widen_group(int bits, const uint8_t *row, Block block, int64_t lane, float row_scale, float *weights)
{
    const uint8_t *its = row + scale_place(block, lane);
    float zero = (float)its[0] / parts_of_code(bits), step = row_scale * scale_of(bits, its[1]);
    for (int i = 0; i < GROUP; i++) {
        int code = row[word_place(block, i / 8, lane) + i % 4] >> i % 8 / 4 * 4 & 15;
        if (bits > 4)
            code |= (row[word_place(block, LINES + i / 16, lane) + i % 4] >> i % 16 / 4 * 2 & 3) << 4;
        weights[i] = step * ((float)code - zero);
    }
}

/* Weights [rows, ins] that int4 or int6 (`bits`) stands for, in float32. */
EXPORT void int4_widen(const uint8_t *from, const float *scales, int64_t rows, int64_t ins, int64_t bits,
                       float *weights)
{
    int64_t groups = ins / GROUP;
    for (int64_t row = 0; row < rows; row++, from += group_bytes((int)bits) * groups)
        for (int64_t group = 0; group < groups; group++, weights += GROUP)
            widen_group((int)bits, from, block_of((int)bits, groups, group), group % BLOCK, scales[row], weights);
}
