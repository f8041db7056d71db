/* A check that all numbers of an array are finite. */
#include "base/kernels.h"

#define EXPONENT 0x7f800000u /* of a float32: all ones in nan and infinity, and in nothing else */

/* Looks at bits, so that large finite numbers do not overflow into a false alarm. */
EXPORT bool all_finite(const uint32_t *bits, int64_t count)
{
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t exponent = bits[i] & EXPONENT;
        largest = exponent > largest ? exponent : largest;
    }
    return largest != EXPONENT;
}
