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

/* How the inputs of the second layer are kept: a model in bfloat16 rounds them. */
typedef enum { IN_BFLOAT16, IN_FLOAT32, ROUNDED_FLOAT32 } Kept;

/* The inputs [count] of the second layer, in float32 or in bfloat16, to `to`, which has room for a multiple of LANES.
 *
 * `gate`, `up`: outputs of the first layer, every `step`-th number; `up` is not read if there is no gate.
 */
void apply_gate(const Gate *how, const float *gate, const float *up, int64_t step, Kept kept, void *to, int64_t count);
