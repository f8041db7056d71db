"""A block of experts over few rows, with weights in bfloat16 or int8, in one compiled call.

The linear layers are those of `matvec`; gather, gate, router weight and sum happen between them, in float32 and
without rounding. So a row has the same bits whatever rows come with it, and Python is entered once a call, not
once a step of the arithmetic: for one row these steps take as long as reading a third of an expert.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray
from numpy.typing import NDArray

from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import addresses, format_of
from faasmoe.experts.kernels import matvec, packing
from faasmoe.experts.kernels.compiled import compiled, pointer
from faasmoe.experts.kernels.expert import ACTIVATIONS, GATE_KINDS, ExpertForm, ExpertWeights
from faasmoe.experts.payload import Request

_NONE, _GLU, _CLAMPED_IN, _CLAMPED_OUT, _SWIGLU_OAI = range(len(GATE_KINDS))
_SILU, _GELU, _GELU_TANH, _QUICK_GELU, _RELU, _RELU2, _SIGMOID, _TANH, _IDENTITY = range(len(ACTIVATIONS))


@compiled
def _activate(activation: int, x: Any) -> Any:
    """`kernels.ACTIVATIONS`, by their places there."""
    if activation in (_SILU, _QUICK_GELU, _SIGMOID):
        slope = np.float32(1.702 if activation == _QUICK_GELU else 1)
        return (np.float32(1) if activation == _SIGMOID else x) / (np.float32(1) + math.exp(-slope * x))
    if activation in (_GELU, _GELU_TANH):
        if activation == _GELU:
            share = math.erf(x * np.float32(math.sqrt(0.5)))
        else:
            share = math.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x))
        return np.float32(0.5) * x * (np.float32(1) + share)
    if activation in (_RELU, _RELU2):
        x = max(x, np.float32(0))
        return x if activation == _RELU else x * x
    return math.tanh(x) if activation == _TANH else x


@compiled
def _gate(kind: int, activation: int, limit: Any, alpha: Any, gate: Any, up: Any) -> Any:
    """`kernels.Gate`, for one number."""
    if kind == _NONE:
        return _activate(activation, gate)
    if kind == _GLU:
        return _activate(activation, gate) * up
    up = min(max(up, -limit), limit)
    if kind == _CLAMPED_OUT:
        return min(_activate(activation, gate), limit) * up
    gate = min(gate, limit)
    if kind == _CLAMPED_IN:
        return _activate(activation, gate) * up
    return (up + np.float32(1)) * gate / (np.float32(1) + math.exp(-alpha * gate))


@compiled
def _expert(
    addresses: Any,  # int64 [9], see `_addresses`
    form: tuple[int, int, Any, Any],
    x: Any,
    hidden: int,
    inner: int,
) -> Any:
    """One expert on rows `x` `[n, hidden]` float32, as `packing.unpack` lays them out; `[n, hidden]` float32."""
    kind, activation, limit, alpha = form
    weights, scales, biases = addresses[:3], addresses[3:6], addresses[6:]
    count = len(x)
    first = np.empty((2, count, inner), np.float32)
    for i in range(2):
        if weights[i]:
            matvec.products(weights[i], scales[i], x, first[i])
            if biases[i]:
                matvec.add_bias(first[i], biases[i])
    gated, line = np.empty((count, inner), np.float32), np.empty(inner, np.float32)
    for row in range(count):
        for i in range(inner):
            up = first[1, row, i] if kind != _NONE else np.float32(0)
            line[i] = _gate(kind, activation, limit, alpha, first[0, row, i], up)
        packing.pack_row(line, gated, row, scales[2])
    out = np.empty((count, hidden), np.float32)
    matvec.products(weights[2], scales[2], gated, out)
    if biases[2]:
        matvec.add_bias(out, biases[2])
    return out


@compiled
def _forward(
    table: Any,  # int64 [experts, 9]
    form: tuple[int, int, Any, Any],
    hidden: int,
    inner: int,
    request: tuple[int, int, int, int, int],
    slots: int,
    sums: int,
) -> None:
    """All slots of a request. `request` and `sums` are addresses, of what `ExpertBlock.forward` takes."""
    rows, picked, row_at, expert_at, weight_at = request
    row = carray(pointer(row_at), (slots,), np.int32)
    expert = carray(pointer(expert_at), (slots,), np.int32)
    weight = carray(pointer(weight_at), (slots,), np.float32)
    for number in range(len(table)):
        its = np.nonzero(expert == number)[0]
        if len(its) == 0:
            continue
        x, int8 = np.empty((len(its), hidden), np.float32), table[number, 3]
        for i in range(len(its)):
            source = np.int64(row[its[i]])
            if picked:
                source = np.int64(carray(pointer(picked), (source + 1,), np.int32)[source])
            packing.unpack_row(rows + 2 * hidden * source, x, i, int8)
        out = _expert(table[number], form, x, hidden, inner)
        for i in range(len(its)):
            to = carray(pointer(sums + 4 * hidden * np.int64(row[its[i]])), (hidden,), np.float32)
            for column in range(hidden):
                to[column] += weight[its[i]] * out[i, column]


class FusedExperts:
    """The experts of a block, whose tensors it keeps alive, ready for the compiled call."""

    def __init__(self, experts: Sequence[ExpertWeights], form: ExpertForm) -> None:
        """Raises `ValueError` for experts that `supports` refuses."""
        if not self.supports(experts, form):
            raise ValueError("experts that the compiled kernel cannot run")
        gate = form.gate
        self._experts = experts
        self._table = np.array([_addresses(expert, form) for expert in experts], np.int64)
        self._hidden, self._inner = experts[0].down.shape
        self._form = (
            GATE_KINDS.index(gate.kind),
            list(ACTIVATIONS).index(gate.activation),
            np.float32(gate.limit),
            np.float32(gate.alpha),
        )

    @staticmethod
    def supports(experts: Sequence[ExpertWeights], form: ExpertForm) -> bool:
        """Whether the kernel takes the experts: matrices all in bfloat16 or all in int8, biases in bfloat16.

        All lie in memory, both widths are multiples of 16, rows contiguous.
        """
        if form.transposed or form.interleaved:
            return False
        matrices = [matrix for expert in experts for matrix in (*expert.first, expert.down)]
        vectors = [vector for expert in experts for vector in (*expert.first_bias, expert.down_bias)]
        return (
            len({format_of(matrix).name for matrix in matrices}) == 1
            and all(matvec.readable(matrix) for matrix in matrices)
            and all(v is None or in_memory(v, "BF16") for v in vectors)
        )

    def forward(self, request: Request, sums: NDArray[np.float32]) -> None:
        """As `ExpertBlock.forward`, for rows in bfloat16 and a request that was checked. Runs on the calling thread."""
        picked = 0 if request.picked is None else address(request.picked)
        rows, row, expert, weight = map(address, (request.rows, request.row, request.expert, request.weight))
        places, slots = (rows, picked, row, expert, weight), len(request.row)
        _forward(self._table, self._form, self._hidden, self._inner, places, slots, address(sums))


def _addresses(expert: ExpertWeights, form: ExpertForm) -> list[int]:
    """Addresses of gate, up and down, then of their scales, then of their biases; 0 for each that is missing."""
    inner = expert.down.shape[1]
    firsts, biases = list(expert.first), list(expert.first_bias)
    if len(firsts) == 1 and form.gate.kind != "none":  # gate and up in one
        firsts = [firsts[0][:inner], firsts[0][inner:]]
        biases = [bias[part] for bias in biases for part in (slice(inner), slice(inner, None))]
    places = [_address(matrix) for matrix in firsts] + [(0, 0)] * (2 - len(firsts))
    places.append(_address(expert.down))
    vectors = [address(bias) for bias in biases] + [0] * (2 - len(biases))
    vectors.append(0 if expert.down_bias is None else address(expert.down_bias))
    return [weights for weights, _ in places] + [scales for _, scales in places] + vectors


def _address(matrix: Matrix) -> tuple[int, int]:
    found = addresses(matrix)
    if found is None:
        raise ValueError(f"no kernel for {format_of(matrix).name} {tuple(matrix.shape)}")
    return found
