/* Gates and activations on vectors. See `expert.Gate` for the formulas. */
#include "expert/gate.h"

#include <math.h>

#include "base/vectors.h"

/* With comparisons of this order a nan stays. */
INLINE floats at_most(floats x, float limit)
{
    return choose(x > every(limit), every(limit), x);
}

INLINE floats at_least(floats x, float limit)
{
    return choose(x < every(limit), every(limit), x);
}

/* e^x, off by two units in the last place at most; from e^-87.3 to e^88.7, beyond which x is taken as one of these.
 *
 * The polynomial is that of Cephes' expf (S. Moshier, netlib.org/cephes): e^x = 2^n e^r with |r| <= ln(2) / 2.
 */
INLINE floats exponential(floats x)
{
    const float to_whole = 12582912; /* 1.5 * 2^23: adding it leaves no bits for fractions */
    x = at_least(at_most(x, 88.722839f), -87.336544f);
    floats n = multiply_add(x, every(1.44269504f), every(to_whole)) - to_whole;
    floats r = multiply_add(n, every(-0.693359375f), x);
    r = multiply_add(n, every(2.12194440e-4f), r);
    floats sum = every(1.9875691500e-4f);
    sum = multiply_add(sum, r, every(1.3981999507e-3f));
    sum = multiply_add(sum, r, every(8.3334519073e-3f));
    sum = multiply_add(sum, r, every(4.1665795894e-2f));
    sum = multiply_add(sum, r, every(1.6666665459e-1f));
    sum = multiply_add(sum, r, every(5.0000001201e-1f));
    sum = multiply_add(sum * r, r, r + 1.0f);
    /* One less, since n may be 128, which no float32 has as its exponent; unsigned, since a nan's may overflow. */
    words power = (words)__builtin_convertvector(n, ints) - 1;
    return sum * (floats)((power + 127) << 23) * 2.0f;
}

INLINE floats sigmoid(floats x)
{
    return 1.0f / (1.0f + exponential(-x));
}

INLINE floats each_lane(float function(float), floats x)
{
    for (int lane = 0; lane < LANES; lane++)
        x[lane] = function(x[lane]);
    return x;
}

INLINE floats activate(int activation, floats x)
{
    switch (activation) {
    case SILU:
        return x * sigmoid(x);
    case GELU:
        return 0.5f * x * (1.0f + each_lane(erff, x * 0.70710678f));
    case GELU_TANH: /* (1 + tanh(u)) / 2 is sigmoid(2u), and 2u is 2 * sqrt(2 / pi) times the sum */
        return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
    case QUICK_GELU:
        return x * sigmoid(1.702f * x);
    case RELU:
        return at_least(x, 0);
    case RELU2:
        x = at_least(x, 0);
        return x * x;
    case SIGMOID:
        return sigmoid(x);
    case TANH:
        return each_lane(tanhf, x);
    default:
        return x;
    }
}

INLINE floats gated(const Gate *how, floats gate, floats up)
{
    if (how->kind == NO_GATE)
        return activate(how->activation, gate);
    if (how->kind == GLU)
        return activate(how->activation, gate) * up;
    up = at_least(at_most(up, how->limit), -how->limit);
    if (how->kind == CLAMPED_OUT)
        return at_most(activate(how->activation, gate), how->limit) * up;
    gate = at_most(gate, how->limit);
    if (how->kind == CLAMPED_IN)
        return activate(how->activation, gate) * up;
    return (up + 1.0f) * gate * sigmoid(how->alpha * gate);
}

/* Every `step`-th number, `lanes` of them; zeros in the other lanes. */
INLINE floats gather(const float *from, int64_t step, int64_t lanes)
{
    floats gathered = {0};
    if (step == 1 && lanes == LANES)
        memcpy(&gathered, from, sizeof gathered);
    else
        for (int64_t lane = 0; lane < lanes; lane++)
            gathered[lane] = from[step * lane];
    return gathered;
}

void apply_gate(const Gate *how, const float *gate, const float *up, int64_t step, Kept kept, void *to, int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES) {
        int64_t lanes = count - i < LANES ? count - i : LANES;
        floats gates = gather(gate + step * i, step, lanes), ups = {0};
        if (how->kind != NO_GATE)
            ups = gather(up + step * i, step, lanes);
        gates = gated(how, gates, ups);
        if (kept == ROUNDED_FLOAT32)
            gates = (floats)(narrow_lanes(gates) & 0xffff0000);
        store_lanes(to, i, gates, kept != IN_BFLOAT16);
    }
}
