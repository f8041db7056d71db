/* Numbers of published weight formats: what the codes of a vector mean. All of them are numbers of bfloat16.
 *
 * A vector of codes is LANES words as they lie in memory, so a lane has the codes of LANE_BITS consecutive bits. Part p
 * of it is, where the CPU adds up products of bfloat16, code p of each half of a lane, as a pair of bfloat16; elsewhere
 * code p of each lane, in float32.
 */
#pragma once

#include "linear/tile.h"

typedef enum {
    E2M1, /* four bits: sign, two of exponent, one of mantissa (OCP Microscaling Formats 1.0, 5.3.3) */
    E4M3, /* eight bits, no infinity, 0x7f and 0xff are no numbers (OCP 8-bit Floating Point, 3) */
} Code;

enum { LANE_BITS = 32, PART_BITS = DOTS ? 16 : 32 };

INLINE int code_bits(Code code)
{
    return code == E2M1 ? 4 : 8;
}

/* How many parts a vector of codes has, and so vectors of x that meet it. */
INLINE int part_count(Code code)
{
    return PART_BITS / code_bits(code);
}

/* Columns of a vector of codes. */
INLINE int unit_columns(Code code)
{
    return LANES * LANE_BITS / code_bits(code);
}

/* Numbers without sign that have `mantissa` bits of it, and an exponent that is `bias` too large.
 *
 * Those without exponent have the next one's steps, and no bit before the point: it is taken off.
 */
INLINE floats small_floats(words magnitudes, int mantissa, int bias)
{
    words bits = magnitudes << (23 - mantissa);
    floats normal = (floats)(bits + ((127u - bias) << 23)), next = (floats)(bits + ((128u - bias) << 23));
    return choose(magnitudes < (1u << mantissa), next - 1.0f / (1 << (bias - 1)), normal);
}

INLINE floats e2m1(words codes)
{
#if defined(__AVX512F__)
    const __m512 numbers = {0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6};
    return (floats)_mm512_permutexvar_ps((__m512i)codes, numbers); /* by the lowest four bits */
#elif defined(__AVX2__)
    const __m256 numbers = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    words magnitudes = (words)_mm256_permutevar8x32_ps(numbers, (__m256i)codes); /* by the lowest three */
    return (floats)(magnitudes | (codes & 8) << 28);
#else
    return (floats)((words)small_floats(codes & 7, 1, 1) | (codes & 8) << 28);
#endif
}

#if DOTS && defined(__AVX512VBMI__)
#define FOUR(byte) byte, byte, byte, byte
#define SIXTEEN(byte) FOUR(byte), FOUR(byte), FOUR(byte), FOUR(byte)
#define STEPS_TO_7 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70
#define STEPS_FROM_8 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0
#define STEPS 0, STEPS_TO_7, STEPS_FROM_8, 0xf0

/* Part `part` of e4m3 codes: the upper and the lower byte of each number are found by seven bits of its code. */
INLINE floats e4m3_pairs(words codes, int part)
{
    static const _Alignas(64) uint8_t UPPER[128] = {
        0, 0x3b, 0x3b, 0x3b, FOUR(0x3c), FOUR(0x3c), FOUR(0x3c), SIXTEEN(0x3d), SIXTEEN(0x3e), SIXTEEN(0x3f),
        SIXTEEN(0x40), SIXTEEN(0x41), SIXTEEN(0x42), FOUR(0x43), FOUR(0x43), FOUR(0x43), 0x43, 0x43, 0x43, 0x7f,
    };
    static const _Alignas(64) uint8_t LOWER[128] = {
        0, 0, 0x80, 0xc0, 0, 0x20, 0x40, 0x60, STEPS_FROM_8, 0xf0, STEPS, STEPS, STEPS,
        STEPS, STEPS, STEPS, 0, STEPS_TO_7, STEPS_FROM_8, 0xc0,
    };
    __m512i by = (__m512i)codes;
    words upper = (words)_mm512_permutex2var_epi8(_mm512_load_si512(UPPER), by, _mm512_load_si512(UPPER + 64));
    words lower = (words)_mm512_permutex2var_epi8(_mm512_load_si512(LOWER), by, _mm512_load_si512(LOWER + 64));
    upper |= codes & 0x80808080; /* the sign */
    if (part)
        return (floats)((upper & 0xff00ff00) | (lower >> 8 & 0x00ff00ff));
    return (floats)((upper << 8 & 0xff00ff00) | (lower & 0x00ff00ff));
}

/* The lowest four bits of each half of a lane, as bfloat16. Five bits find a number, so the table has it twice. */
INLINE floats e2m1_pairs(words codes)
{
#define E2M1_NUMBERS                                                                                                   \
    0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, 0x8000, 0xbf00, 0xbf80, 0xbfc0, 0xc000, 0xc040, 0xc080, \
        0xc0c0
    static const _Alignas(64) bfloat16 NUMBERS[32] = {E2M1_NUMBERS, E2M1_NUMBERS};
    return (floats)_mm512_permutexvar_epi16((__m512i)codes, _mm512_load_si512(NUMBERS));
}
#endif

/* The number in the lowest bits of each lane. */
INLINE floats number_of(Code code, words codes)
{
    if (code == E2M1)
        return e2m1(codes);
#if DOTS && defined(__AVX512VBMI__)
    return e4m3_pairs(codes << 24, 1);
#endif
    words magnitudes = codes & 0x7f, nan = (words)(magnitudes == 0x7f) & 0x7fc00000;
    return (floats)((words)small_floats(magnitudes, 3, 7) | nan | (codes & 0x80) << 24);
}

/* Part `part` of a vector of codes. */
INLINE floats decode(Code code, words codes, int part)
{
#if DOTS && defined(__AVX512VBMI__)
    return code == E2M1 ? e2m1_pairs(codes >> 4 * part) : e4m3_pairs(codes, part);
#endif
    codes >>= code_bits(code) * part;
    if (!DOTS)
        return number_of(code, codes);
    words low = (words)number_of(code, codes), high = (words)number_of(code, codes >> 16);
    return (floats)(low >> 16 | (high & 0xffff0000));
}
