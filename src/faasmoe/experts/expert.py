"""The arithmetic of an expert: two linear layers with a gate or an activation between them.

A gate is known by a name and two numbers, so that it can travel in an artifact. `model.expert_form`
recognises which one a transformers class uses by running the class's own gate on probe values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.blas import Rows
from faasmoe.experts.dtypes import narrowed, widened
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import format_of

_erf = np.vectorize(math.erf, otypes=[np.float32])  # numpy has none


def _sigmoid(x: Rows) -> Rows:
    with np.errstate(over="ignore"):  # an exponential that is infinite makes the 0 that it should
        exponential: Rows = np.exp(-x)
    return np.float32(1) / (np.float32(1) + exponential)


def _gelu_tanh(x: Rows) -> Rows:
    bent: Rows = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    return 0.5 * x * (1 + bent)


ACTIVATIONS: dict[str, Callable[[Rows], Rows]] = {
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x * math.sqrt(0.5))),
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),  # Hendrycks & Gimpel 2016, section 2
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.square(np.maximum(x, 0)),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "identity": lambda x: x,
}


@dataclass(frozen=True, slots=True)
class Gate:
    """The function from an expert's first layer to its second.

    Kinds: `none` act(x), without a gate; `glu` act(gate) · up; `clamped_in` the same with gate clamped above
    and up clamped to both sides by `limit` first; `clamped_out` with act(gate) clamped above instead;
    `swiglu_oai` (up + 1) · gate · sigmoid(alpha · gate) after the clamps of `clamped_in` (gpt-oss).
    """

    kind: str
    activation: str = "identity"
    limit: float = float("inf")
    alpha: float = 1.0

    def __call__(self, gate: Rows, up: Rows | None) -> Rows:
        """`gate`, `up` `[n, I]` (`up` is None for `none`) to `[n, I]`."""
        act = ACTIVATIONS[self.activation]
        if up is None:
            return act(gate)
        if self.kind == "glu":
            return act(gate) * up
        if self.kind == "clamped_out":
            return np.minimum(act(gate), self.limit) * np.clip(up, -self.limit, self.limit)
        gate, up = np.minimum(gate, self.limit), np.clip(up, -self.limit, self.limit)
        if self.kind == "clamped_in":
            return act(gate) * up
        return (up + 1) * (gate * _sigmoid(self.alpha * gate))


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


def expert_forward(x: Rows, weights: ExpertWeights, form: ExpertForm, dtype: str = "F32") -> Rows:
    """One expert on rows `x` `[n, H]`; returns `[n, H]`. A row has the same bits in any company.

    `dtype` (`F32`, `BF16`) is that in which the model computes. What the gate gives is rounded to it, as in the
    compiled kernel, and nothing else is.
    """
    biases = weights.first_bias or (None,) * len(weights.first)
    outs = [_linear(x, w, b, form.transposed) for w, b in zip(weights.first, biases, strict=True)]
    gated = form.gate(*_split(outs, form))
    if dtype == "BF16":
        gated = widened(narrowed(gated))
    return _linear(gated, weights.down, weights.down_bias, form.transposed)


def _linear(x: Rows, weight: Matrix, bias: NDArray[Any] | None, transposed: bool) -> Rows:
    y = format_of(weight).products(x, weight, transposed)
    return y if bias is None else y + widened(bias)


def _split(outs: list[Rows], form: ExpertForm) -> tuple[Rows, Rows | None]:
    """Gate and up `[n, I]` from what the first layer's matrices gave."""
    if len(outs) == 2:
        return outs[0], outs[1]
    if form.gate.kind == "none":
        return outs[0], None
    if form.interleaved:
        return outs[0][:, ::2], outs[0][:, 1::2]
    gate, up = np.split(outs[0], 2, axis=1)
    return gate, up
