"""The arithmetic of an expert: two linear layers with a gate or an activation between them.

A gate is known by a name and two numbers, so that it can travel in an artifact. `model.expert_form`
recognises which one a transformers class uses by running the class's own gate on probe values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import format_of


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)  # Hendrycks & Gimpel 2016, section 2


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
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

    def __call__(self, gate: Tensor, up: Tensor | None) -> Tensor:
        """`gate`, `up` `[n, I]` (`up` is None for `none`) to `[n, I]`."""
        act = ACTIVATIONS[self.activation]
        if up is None:
            return act(gate)
        if self.kind == "glu":
            return act(gate) * up
        if self.kind == "clamped_out":
            return act(gate).clamp(max=self.limit) * up.clamp(-self.limit, self.limit)
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        if self.kind == "clamped_in":
            return act(gate) * up
        return (up + 1) * (gate * torch.sigmoid(self.alpha * gate))


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
    first_bias: tuple[Tensor, ...] = ()
    down_bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ExpertForm:
    """The form that all experts of a model share."""

    gate: Gate
    transposed: bool = False  # matrices are [in, out]
    interleaved: bool = False  # gate and up alternate in one matrix instead of following each other


_MATRIX_ROWS = 32  # from so many on a processor that multiplies matrices is worth bringing weights into its order


@cache
def _multiplies_matrices() -> bool:
    """Whether the CPU has instructions for products of matrices in bfloat16, which oneDNN uses and we do not."""
    return torch.cpu._is_amx_tile_supported()


def own_kernel(rows: int) -> bool:
    """Whether `matvec` is the fastest for `rows` rows in bfloat16 (`python -m benchmarks.linear`).

    Without instructions for matrices it is for any number, with AVX-512's for bfloat16 as well: oneDNN first brings
    weights into an order of its own, which takes longer than reading them, and memory. With them oneDNN is taken
    from `_MATRIX_ROWS` rows up, which no machine at hand could measure.
    """
    return rows < _MATRIX_ROWS or not _multiplies_matrices()


def linear(x: Tensor, weight: Matrix, bias: Tensor | None, transposed: bool) -> Tensor:
    """`x` `[n, in]` to `[n, out]`. `weight` is `[out, in]`, or `[in, out]` if `transposed`.

    Raises `ValueError` for operands that the weight's format does not take.
    """
    if x.dtype == torch.bfloat16 and not transposed and own_kernel(len(x)):
        from faasmoe.experts.kernels import matvec  # noqa: PLC0415 - numba is for processes that run experts

        if matvec.supports(x, weight, bias):
            return matvec.linear_rows(x, weight, bias)
    return format_of(weight).linear(x, weight, bias, transposed)


def expert_forward(x: Tensor, weights: ExpertWeights, form: ExpertForm) -> Tensor:
    """One expert on rows `x` `[n, H]`; returns `[n, H]` in `x`'s dtype."""
    biases = weights.first_bias or (None,) * len(weights.first)
    outs = [linear(x, w, b, form.transposed) for w, b in zip(weights.first, biases, strict=True)]
    gate, up = _split(outs, form)
    return linear(form.gate(gate, up), weights.down, weights.down_bias, form.transposed)


def _split(outs: list[Tensor], form: ExpertForm) -> tuple[Tensor, Tensor | None]:
    """Gate and up `[n, I]` from what the first layer's matrices gave."""
    if len(outs) == 2:
        return outs[0], outs[1]
    if form.gate.kind == "none":
        return outs[0], None
    if form.interleaved:
        return outs[0][..., ::2], outs[0][..., 1::2]
    gate, up = outs[0].chunk(2, dim=-1)
    return gate, up
