/* The function from an expert's first layer to its second. */
#pragma once

#include "base/kernels.h"

/* As `expert.GATE_KINDS` and `expert.ACTIVATIONS` have them. */
typedef enum { NO_GATE, GLU, CLAMPED_IN, CLAMPED_OUT, SWIGLU_OAI } GateKind;
typedef enum { SILU, GELU, GELU_TANH, QUICK_GELU, RELU, RELU2, SIGMOID, TANH, IDENTITY } Activation;
typedef struct {
    int32_t kind, activation;
    float limit, alpha;
} Gate;

/* The inputs [count] of the second layer, rounded to bfloat16, as models in bfloat16 have them.
 *
 * `gate`, `up`: outputs of the first layer, every `step`-th number; `up` is not read if there is no gate.
 */
void apply_gate(const Gate *how, const float *gate, const float *up, int64_t step, bfloat16 *to, int64_t count);
