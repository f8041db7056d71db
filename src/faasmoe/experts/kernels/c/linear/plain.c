/* Lays out rows of x for the tiles of tile.h. */
#include "linear/plain.h"

enum { LARGEST = 0x7f7f };             /* of whole numbers: two signed bytes, as `BYTE_DOTS` takes them apart */
static const float SMALLEST = 1e-30f;  /* rows without a larger number are zeros: its inverse is no float32 */

/* The factor that brings a row to whole numbers; its inverse is the row's scale, nan if a number is not finite. */
static float to_whole(const bfloat16 *x, int64_t ins, float *scale)
{
    uint32_t largest = 0; /* as bits, without the sign */
    for (int64_t i = 0; i < ins; i++) {
        uint32_t bits = x[i] & 0x7fff;
        largest = bits > largest ? bits : largest;
    }
    float most = widen(largest);
    *scale = largest >= 0x7f80 ? widen(0x7fc0) : most < SMALLEST ? 0 : most / LARGEST;
    return largest >= 0x7f80 || most < SMALLEST ? 0 : LARGEST / most;
}

static void round_step(const bfloat16 *x, float factor, char *to)
{
    int16_t whole[STEP];
    for (int column = 0; column < STEP; column++)
        whole[column] = (int16_t)nearest_whole(widen(x[column]) * factor);
#if BYTE_DOTS
    int8_t bytes[2 * STEP];
    for (int column = 0; column < STEP; column++) {
        bytes[STEP + column] = (int8_t)whole[column];
        bytes[column] = (int8_t)((whole[column] - bytes[STEP + column]) / 256);
    }
    memcpy(to, bytes, sizeof bytes);
#else
    memcpy(to, whole, sizeof whole);
#endif
}

/* The even columns, then the odd ones. */
static void part_step(Format format, const void *x, char *to)
{
    float numbers[STEP];
    for (int column = 0; column < STEP; column++) {
        float number = format == BFLOAT16 ? widen(((const bfloat16 *)x)[column]) : ((const float *)x)[column];
        numbers[LANES * (column % 2) + column / 2] = number;
    }
    memcpy(to, numbers, sizeof numbers);
}

static void pack_step(Format format, const char *x, float factor, char *to)
{
    if (format == INT8)
        round_step((const bfloat16 *)x, factor, to);
    else if (format == WIDE_BFLOAT16 || (format == BFLOAT16 && !DOTS))
        part_step(format, x, to);
    else
        memcpy(to, x, numbers_size(format, STEP));
}

int64_t plain_line(Format format, int64_t ins)
{
    return ins * weight_bytes(format);
}

int64_t plain_row_size(Format format, int64_t ins)
{
    return step_count(ins) * STEP * packed_bytes(format) + (format == INT8 ? VECTOR : 0); /* rows stay aligned */
}

void plain_pack_row(Format format, const void *x, char *packed, int64_t rows, int64_t row, int64_t ins)
{
    int64_t step_bytes = STEP * packed_bytes(format), whole = ins / STEP, x_bytes = numbers_size(format, STEP);
    char *to = packed + step_bytes * row;
    float factor = format == INT8 ? to_whole(x, ins, row_scales(packed, rows, ins) + row) : 0;
    for (int64_t step = 0; step < whole; step++)
        pack_step(format, (const char *)x + x_bytes * step, factor, to + step_bytes * rows * step);
    if (ins % STEP) {
        float rest[STEP] = {0}; /* or numbers of bfloat16 */
        memcpy(rest, (const char *)x + x_bytes * whole, numbers_size(format, ins % STEP));
        pack_step(format, (const char *)rest, factor, to + step_bytes * rows * whole);
    }
}
