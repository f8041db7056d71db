/* Weights to int4 (int4.h) and back. */
#include "int4.h"

#define VECTORS (GROUP / LANES)
#define TRIALS 9 /* scales that are tried to both sides of the plain one */

static float sum_of(floats values)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += values[i];
    return sum;
}

INLINE floats chosen(ints mask, floats yes, floats no)
{
    return (floats)((mask & (ints)yes) | (~mask & (ints)no));
}

/* The nearest whole numbers from -8 to 7. */
INLINE floats levels(floats values)
{
    floats low = (floats){0} - 8, high = (floats){0} + 7;
    values = chosen(values < low, low, values);
    values = chosen(values > high, high, values);
    return (values + ROUNDER) - ROUNDER;
}

/* The number of a group that is farthest from 0, of two the first; a nan is farther than all. */
static float farthest(const float *weights)
{
    uint32_t most = 0;
    int at = 0;
    for (int i = 0; i < GROUP; i++) {
        uint32_t bits;
        memcpy(&bits, &weights[i], sizeof bits);
        if ((bits & 0x7fffffff) > most) {
            most = bits & 0x7fffffff;
            at = i;
        }
    }
    return weights[at];
}

/* The scale that has the least squared error of those tried: for the levels that each of them gives, the best scale.
 *
 * The plain one makes the number farthest from 0 the level -8, so it may be negative. Larger and smaller ones, which let
 * that number be off to have the others nearer, are tried in steps of 1/80 (as llama.cpp's make_qx_quants does). */
static float best_scale(const floats *weights, float most)
{
    float best = 0, gain = 0; /* by how much the squared error is less than if all weights were 0 */
    for (int trial = -TRIALS; trial <= TRIALS; trial++) {
        float inverse = -(ZERO + 0.1f * trial) / most;
        floats products = {0}, squares = {0};
        for (int i = 0; i < VECTORS; i++) {
            floats level = levels(weights[i] * inverse);
            products += level * weights[i];
            squares += level * level;
        }
        float product = sum_of(products), square = sum_of(squares);
        if (square > 0 && product * (product / square) > gain) {
            gain = product * (product / square);
            best = product / square;
        }
    }
    return best;
}

/* One group: its words go to `codes`, where `places` says. The scale is not finite if a weight is not. */
static bfloat16 convert_group(const float *weights, uint8_t *codes, word_places places)
{
    floats loaded[VECTORS];
    memcpy(loaded, weights, sizeof loaded);
    float most = farthest(weights);
    float size = most < 0 ? -most : most;
    bool finite = size <= 3.4e38f, tiny = size < 1e-30f; /* squares of tinier ones would be lost */
    float power = 1 / (tiny ? 1 : size);
    for (int i = 0; i < VECTORS; i++)
        loaded[i] *= power; /* so that no square overflows */
    bfloat16 scale = !finite ? 0x7fc0 : tiny ? 0 : narrow(best_scale(loaded, most * power) * size);
    float inverse = widen(scale) != 0 && finite ? 1 / widen(scale) : 0;
    uint8_t code[GROUP];
    for (int i = 0; i < VECTORS; i++) {
        floats original;
        memcpy(&original, weights + LANES * i, sizeof original);
        ints level = __builtin_convertvector(levels(finite ? original * inverse : (floats){0}), ints);
        for (int lane = 0; lane < LANES; lane++)
            code[LANES * i + lane] = (uint8_t)(level[lane] + ZERO);
    }
    for (int line = 0; line < LINES; line++)
        for (int i = 0; i < 4; i++)
            codes[places.first + places.line * line + i] = (uint8_t)(code[8 * line + i] | code[8 * line + 4 + i] << 4);
    return scale;
}

/* float32 `weights` [rows, ins] in int4. Scales that are not finite tell of weights that are not. */
EXPORT void int4_convert(const float *weights, int64_t rows, int64_t ins, uint8_t *codes, bfloat16 *scales)
{
    int64_t groups = ins / GROUP;
    for (int64_t row = 0; row < rows; row++, codes += GROUP / 2 * groups, scales += groups)
        for (int64_t group = 0; group < groups; group++, weights += GROUP)
            scales[group] = convert_group(weights, codes, places_of(groups, group));
}

/* Weights [rows, ins] that int4 stands for, in float32, which has all of them exactly. */
EXPORT void int4_widen(const uint8_t *codes, const bfloat16 *scales, int64_t rows, int64_t ins, float *weights)
{
    int64_t groups = ins / GROUP;
    for (int64_t row = 0; row < rows; row++, codes += GROUP / 2 * groups, scales += groups)
        for (int64_t group = 0; group < groups; group++, weights += GROUP) {
            word_places places = places_of(groups, group);
            for (int i = 0; i < GROUP; i++) {
                uint8_t pair = codes[places.first + places.line * (i / 8) + i % 4];
                weights[i] = widen(scales[group]) * ((i % 8 < 4 ? pair & 15 : pair >> 4) - ZERO);
            }
        }
}
