/* Numbers of float16 in float32: exact, and infinite or nan where they are. */
#pragma once

#include "base/intrinsics.h"
#include "base/kernels.h"

/* LANES neighbours at any address. */
INLINE floats widen_float16(const char *address)
{
#if defined(__AVX512F__)
    return (floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)address));
#elif defined(__F16C__)
    return (floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)address));
#elif defined(__aarch64__)
    float16x4_t loaded;
    memcpy(&loaded, address, sizeof loaded);
    return (floats)vcvt_f32_f16(loaded);
#else
    typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
    halves loaded;
    memcpy(&loaded, address, sizeof loaded);
    words bits = __builtin_convertvector(loaded, words), sign = (bits & 0x8000) << 16;
    /* With its exponent taken as one of float32, 2^112 times too small, also if it is denormal. */
    floats size = (floats)((bits & 0x7fff) << 13) * 0x1p112f;
    ints whole = (bits & 0x7c00) != 0x7c00;
    return (floats)(sign | (words)choose(whole, size, (floats)((words)size | 0x7f800000)));
#endif
}
