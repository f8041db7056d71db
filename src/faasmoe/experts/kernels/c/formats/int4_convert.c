/* Weights to int4 (int4_order.h) and back. */
#include "formats/int4_order.h"

#include "base/vectors.h"

enum { VECTORS = GROUP / LANES, TRIALS = 13 };
static const float FEWEST = 12.6f, MORE = 0.3f; /* codes over which a trial spreads a group, and the next one's more */
static const float LARGEST = 1.9375f;           /* scale of a group */

/* A group as a trial has it: its bytes of the scales, and its codes. */
typedef struct {
    uint8_t zero, scale;
    floats codes[VECTORS];
} trial;

/* The nearest codes. */
INLINE floats codes_of(floats values)
{
    floats low = {0}, high = low + 15;
    values = choose(values < low, low, values);
    values = choose(values > high, high, values);
    return (values + ROUNDER) - ROUNDER;
}

static float scale_of(uint8_t byte)
{
    uint32_t bits = ((uint32_t)byte << SCALE_BITS) + SCALE_BIAS;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
}

static uint8_t nearest_scale(float scale)
{
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    int32_t byte = ((int32_t)bits - SCALE_BIAS + (1 << (SCALE_BITS - 1))) >> SCALE_BITS;
    return (uint8_t)(scale <= 0 || byte < 0 ? 0 : byte > 255 ? 255 : byte);
}

static uint8_t nearest_zero(float zero)
{
    float sixteenths = zero * SIXTEENTHS + 0.5f;
    return (uint8_t)(sixteenths < 0 ? 0 : sixteenths > 15 * SIXTEENTHS ? 15 * SIXTEENTHS : sixteenths);
}

/* Spread the group, whose smallest number is `low`, over its codes by steps of `step`. The scale and the zero that are
 * kept are the best for these codes (by least squares), and then the codes the nearest for them. Returns the squared
 * error. */
static float try_step(const floats *weights, float low, float step, trial *result)
{
    floats ones = {0}, squares = {0}, products = {0}, sums = {0}, error = {0};
    for (int i = 0; i < VECTORS; i++) {
        floats codes = codes_of((weights[i] - low) * (1 / step));
        ones += codes;
        squares += codes * codes;
        products += codes * weights[i];
        sums += weights[i];
    }
    float one = sum(ones), all = sum(sums), spread = GROUP * sum(squares) - one * one;
    result->scale = nearest_scale(spread > 0 ? (GROUP * sum(products) - one * all) / spread : step);
    float scale = scale_of(result->scale);
    result->zero = nearest_zero((one - all / scale) / GROUP);
    float zero = (float)result->zero / SIXTEENTHS;
    for (int i = 0; i < VECTORS; i++) {
        result->codes[i] = codes_of(weights[i] * (1 / scale) + zero);
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

/* One group of numbers that were divided by the row's scale: its words go to `codes`, where `places` says. */
static void convert_group(const float *weights, uint8_t *codes, word_places places, uint8_t *scales)
{
    floats loaded[VECTORS];
    float low, high, least = 0;
    trial best = {8 * SIXTEENTHS, 0, {{0}}}, next;
    memcpy(loaded, weights, sizeof loaded);
    range_of(weights, &low, &high);
    for (int i = 0; i < VECTORS; i++)
        best.codes[i] += 8;
    for (int i = 0; i < TRIALS && high > low; i++) {
        float error = try_step(loaded, low, (high - low) / (FEWEST + MORE * i), &next);
        if (i == 0 || error < least) {
            least = error;
            best = next;
        }
    }
    scales[0] = best.zero;
    scales[1] = best.scale;
    uint8_t code[GROUP];
    for (int i = 0; i < GROUP; i++)
        code[i] = (uint8_t)best.codes[i / LANES][i % LANES];
    for (int line = 0; line < LINES; line++)
        for (int i = 0; i < 4; i++)
            codes[places.first + places.line * line + i] = (uint8_t)(code[8 * line + i] | code[8 * line + 4 + i] << 4);
}

/* The row's scale: the smallest with which no trial's step is too large for a group's; 0 for a row of zeros. */
static float row_scale(const float *weights, int64_t groups)
{
    float most = 0, low, high;
    for (int64_t i = 0; i < GROUP * groups; i++)
        if (weights[i] - weights[i] != 0)
            return weights[i] - weights[i]; /* nan: it is not finite */
    for (int64_t group = 0; group < groups; group++) {
        range_of(weights + GROUP * group, &low, &high);
        float range = high / FEWEST - low / FEWEST; /* apart, so that it is finite */
        most = range > most ? range : most;
    }
    return most > 1e-30f ? most / LARGEST : 0;
}

/* float32 `weights` [rows, ins] in int4. A row's scale is no number if one of its weights is not finite. */
EXPORT void int4_convert(const float *weights, int64_t rows, int64_t ins, uint8_t *codes, uint8_t *scales)
{
    int64_t groups = ins / GROUP;
    for (int64_t row = 0; row < rows; row++, codes += GROUP / 2 * groups, scales += scales_size(groups)) {
        float scale = row_scale(weights, groups), inverse = scale > 0 ? 1 / scale : 0;
        memcpy(scales, &scale, ROW_SCALE);
        for (int64_t group = 0; group < groups; group++, weights += GROUP) {
            float divided[GROUP];
            for (int i = 0; i < GROUP; i++)
                divided[i] = inverse > 0 ? weights[i] * inverse : 0;
            convert_group(divided, codes, places_of(groups, group), scales + ROW_SCALE + 2 * group);
        }
    }
}

/* Weights [rows, ins] that int4 stands for, in float32. */
EXPORT void int4_widen(const uint8_t *codes, const uint8_t *scales, int64_t rows, int64_t ins, float *weights)
{
    int64_t groups = ins / GROUP;
    for (int64_t row = 0; row < rows; row++, codes += GROUP / 2 * groups, scales += scales_size(groups)) {
        float scale;
        memcpy(&scale, scales, sizeof scale);
        for (int64_t group = 0; group < groups; group++, weights += GROUP) {
            word_places places = places_of(groups, group);
            const uint8_t *its = scales + ROW_SCALE + 2 * group;
            float zero = (float)its[0] / SIXTEENTHS, step = scale * scale_of(its[1]);
            for (int i = 0; i < GROUP; i++) {
                uint8_t pair = codes[places.first + places.line * (i / 8) + i % 4];
                weights[i] = step * ((float)(i % 8 < 4 ? pair & 15 : pair >> 4) - zero);
            }
        }
    }
}
