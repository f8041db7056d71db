/* The largest numbers of rows of logits. */
#include <math.h>

#include "base/vectors.h"

enum { BLOCK = 4096, TOPS = 4 }; /* numbers that are looked at together, and vectors that are compared side by side */

/* The largest of `count` numbers; NaN if there is one. */
INLINE float largest_of(const float *values, int64_t count)
{
    floats tops[TOPS], its;
    ints unordered = {0};
    int64_t i = 0;
    for (int64_t k = 0; k < TOPS; k++)
        tops[k] = every(-INFINITY);
    for (; i + TOPS * LANES <= count; i += TOPS * LANES)
        for (int64_t k = 0; k < TOPS; k++) {
            memcpy(&its, values + i + LANES * k, sizeof its);
            tops[k] = choose((ints)(its > tops[k]), its, tops[k]);
            unordered |= (ints)(its != its);
        }
    float top = -INFINITY;
    bool nan = false;
    for (int64_t k = 0; k < TOPS; k++)
        for (int64_t lane = 0; lane < LANES; lane++) {
            top = tops[k][lane] > top ? tops[k][lane] : top;
            nan |= unordered[lane] != 0;
        }
    for (; i < count; i++) {
        top = values[i] > top ? values[i] : top;
        nan |= values[i] != values[i];
    }
    return nan ? NAN : top;
}

/* The place of the first of the largest numbers of a row; NaN is larger than all. */
INLINE int64_t place_of_largest(const float *values, int64_t width)
{
    float most = -INFINITY;
    int64_t place = 0;
    for (int64_t first = 0; first < width; first += BLOCK) {
        float top = largest_of(values + first, width - first < BLOCK ? width - first : BLOCK);
        if (top > most || top != top) {
            most = top;
            place = first;
        }
        if (top != top)
            break;
    }
    while (values[place] < most || (most != most && values[place] == values[place]))
        place++;
    return place;
}

/* By row of `values` [rows, width] the place of its largest number, the first if there are several, and the number.
 * NaN is larger than all. The width is at least one.
 */
EXPORT void largest(const float *values, int64_t rows, int64_t width, int64_t *places, float *tops)
{
    for (int64_t row = 0; row < rows; row++, values += width) {
        places[row] = place_of_largest(values, width);
        tops[row] = values[places[row]];
    }
}
