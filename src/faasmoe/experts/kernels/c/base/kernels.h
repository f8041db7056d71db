/* The basis of all kernels: vectors, and bfloat16, which is the upper half of a float32.
 *
 * Each file is compiled once for each instruction set (hatch_build.py). Vectors are those of GCC and clang, as wide as a
 * register of the instruction set, so that the same source serves them all. Intrinsics stand only where an instruction
 * has no other name, in files that include base/intrinsics.h: to read their headers takes longer than to compile most
 * kernels.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifndef __clang__
#include "base/intrinsics.h"
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define ONE_BY_ONE _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#define ONE_BY_ONE _Pragma("GCC unroll 1")
#endif

#ifdef __AVX512F__
#define LANES 16 /* float32 values in a register */
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef uint16_t bfloat16;
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

INLINE float widen(bfloat16 value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* To nearest, ties to even. */
INLINE bfloat16 narrow(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) /* a nan, whose bits the rounding could carry into an infinity */
        return 0x7fc0;
    return (bfloat16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* The nearest whole number to one below 2^22, ties to even: its sum with 1.5 * 2^23 has it in its low bits. */
#define ROUNDER 12582912.0f
INLINE int32_t nearest_whole(float value)
{
    float sum = value + ROUNDER;
    int32_t bits, zero = 0x4b400000; /* those of ROUNDER */
    memcpy(&bits, &sum, sizeof bits);
    return bits - zero;
}

INLINE floats every(float value)
{
    return (floats){0} + value;
}

/* a * b + c, rounded once where the instruction set can. */
INLINE floats multiply_add(floats a, floats b, floats c)
{
#if defined(__clang__) && (defined(__FMA__) || defined(__aarch64__))
    return __builtin_elementwise_fma(a, b, c);
#elif defined(__AVX512F__)
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* Lane by lane `yes` where all bits of `which` are set, `no` where none is, as comparisons leave them. */
INLINE floats choose(ints which, floats yes, floats no)
{
    return (floats)((which & (ints)yes) | (~which & (ints)no));
}
