"""What an expert is: two linear layers with a gate or an activation between them. `fused` computes it.

A gate is known by a name and two numbers, so that it can travel in an artifact. `model.expert_form`
recognises which one a transformers class uses by running the class's own gate on probe values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from faasmoe.experts.formats.base import Matrix

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2", "sigmoid", "tanh", "identity")
"""GELU is exact, but for `gelu_tanh`; `quick_gelu` is x · sigmoid(1.702 x) (Hendrycks & Gimpel 2016, section 2)."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The function from an expert's first layer to its second (`c/expert/gate.c`).

    Kinds: `none` act(x), without a gate; `glu` act(gate) · up; `clamped_in` the same with gate clamped above
    and up clamped to both sides by `limit` first; `clamped_out` with act(gate) clamped above instead;
    `swiglu_oai` (up + 1) · gate · sigmoid(alpha · gate) after the clamps of `clamped_in` (gpt-oss).
    """

    kind: str
    activation: str = "identity"
    limit: float = float("inf")
    alpha: float = 1.0


GATE_KINDS = ("none", "glu", "clamped_in", "clamped_out", "swiglu_oai")


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """One expert's weights, as they lie in the checkpoint.

    `first` holds the first layer's matrices: one (no gate, or gate and up in one) or two (gate, up);
    `first_bias` as many vectors, or none. A matrix is `[out, in]`, or `[in, out]` if `transposed`; quantised only the
    former.
    """

    first: tuple[Matrix, ...]
    down: Matrix
    first_bias: tuple[NDArray[Any], ...] = ()
    down_bias: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class ExpertForm:
    """The form that all experts of a model share."""

    gate: Gate
    transposed: bool = False  # matrices are [in, out]
    interleaved: bool = False  # gate and up alternate in one matrix instead of following each other
