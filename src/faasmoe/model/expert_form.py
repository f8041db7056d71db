"""Recognise what a transformers experts class computes, by running it.

The class's own gate is evaluated on probe values and compared with every gate that `experts.expert` knows;
then the class's whole forward runs on a few tiny random experts, next to the kernel. So a class that
transformers adds tomorrow is served if it computes something known, and refused by name if it does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from faasmoe.errors import UnsupportedModel
from faasmoe.experts.expert import ACTIVATIONS, ExpertForm, ExpertWeights, Gate
from faasmoe.experts.fused import FusedExperts
from faasmoe.experts.payload import Request
from faasmoe.model.adapter.experts import ExpertsFlags, gated, own_forward, with_parameters
from faasmoe.model.tensors import as_array

_E, _H, _I = 3, 12, 10  # experts, hidden and intermediate size of the tiny experts
_TOLERANCE = 1e-5


def recognise(architecture: str, experts: nn.Module) -> ExpertForm:
    """The form of `experts`, an experts module on any device.

    Raises `UnsupportedModel` naming the architecture if no known form computes the same.
    """
    try:
        flags = ExpertsFlags.of(experts)
        if flags.has_post_expert_norm:
            raise UnsupportedModel(f"{architecture}: its experts end in a norm, which the kernels do not compute")
        gate = _recognise_gate(experts, flags)
        if gate is None:
            raise UnsupportedModel(f"{architecture}: its experts use a gate that the kernels do not compute")
        interleaved = flags.has_gate and not flags.is_concatenated
        form = ExpertForm(gate, transposed=flags.is_transposed, interleaved=interleaved)
        same = _computes_the_same(experts, flags, form)
    except UnsupportedModel:
        raise
    except Exception as error:  # a foreign class may fail in any way when probed
        raise UnsupportedModel(f"{architecture}: its experts cannot be probed: {error!r}") from error
    if not same:
        raise UnsupportedModel(f"{architecture}: its experts compute something that the kernels do not")
    return form


def _recognise_gate(experts: nn.Module, flags: ExpertsFlags) -> Gate | None:
    grid = torch.linspace(-30, 30, 121)  # far enough out to meet any clamp
    gate, up = (t.reshape(1, -1) for t in torch.meshgrid(grid, grid[::3] + 0.1, indexing="ij"))
    if flags.has_gate:
        both = torch.cat([gate, up], -1) if flags.is_concatenated else torch.stack([gate, up], -1).flatten(1)
    wanted = gated(experts, both if flags.has_gate else gate)
    rows = torch.stack([gate[0], up[0]], 1)
    for candidate in _candidates(experts, flags):
        if torch.allclose(_alone(candidate, rows)[None], wanted, _TOLERANCE, _TOLERANCE):
            return candidate
    return None


def _alone(gate: Gate, rows: Tensor) -> Tensor:
    """What a gate gives for pairs of gate and up `[n, 2]`: `[n]`, by an expert that computes nothing else."""
    first = torch.eye(2)[:1] if gate.kind == "none" else torch.eye(2)
    expert = ExpertWeights((as_array(first),), as_array(torch.tensor([[1.0], [0.0]])))
    slots, sums = torch.arange(len(rows)).int(), torch.zeros(len(rows), 2)
    request = _request(rows, slots, torch.zeros_like(slots), torch.ones(len(rows)))
    FusedExperts([expert], ExpertForm(gate), "F32").forward(request, as_array(sums))
    return sums[:, 0]


def _request(rows: Tensor, row: Tensor, expert: Tensor, weight: Tensor) -> Request:
    return Request(
        layer=0, rows=as_array(rows), row=as_array(row), expert=as_array(expert), weight=as_array(weight)
    )


def _candidates(experts: nn.Module, flags: ExpertsFlags) -> Iterator[Gate]:
    """Known gates, with the numbers that the module carries as attributes for their limit and alpha."""
    if not flags.has_gate:
        yield from (Gate("none", activation) for activation in ACTIVATIONS)
        return
    numbers = {float(v) for v in vars(experts).values() if isinstance(v, float)} | {1.0}
    for activation in ACTIVATIONS:
        yield Gate("glu", activation)
        for limit in numbers:
            yield Gate("clamped_in", activation, limit=limit)
            yield Gate("clamped_out", activation, limit=limit)
    for limit in numbers | {float("inf")}:
        yield from (Gate("swiglu_oai", limit=limit, alpha=alpha) for alpha in numbers)


def _computes_the_same(experts: nn.Module, flags: ExpertsFlags, form: ExpertForm) -> bool:
    tiny, weights = _tiny_copy(experts, flags, form)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(5, _H, generator=generator)
    index = torch.stack([torch.randperm(_E, generator=generator)[:2] for _ in range(5)])
    router = torch.rand(5, 2, generator=generator) + 0.1
    with torch.no_grad():
        wanted = own_forward(tiny, rows, index, router)
        got = torch.zeros_like(rows)
        row, expert = torch.arange(5).repeat_interleave(2).int(), index.flatten().int()
        request = _request(rows, row, expert, router.flatten())
        FusedExperts(weights, form, "F32").forward(request, as_array(got))
    return torch.allclose(wanted, got, _TOLERANCE, _TOLERANCE)


def _tiny_copy(experts: nn.Module, flags: ExpertsFlags, form: ExpertForm) -> tuple[nn.Module, list[ExpertWeights]]:
    """A copy of the module with few, small, random experts, and the same weights for the kernel."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(_E, *shape, generator=generator) * 0.5

    wide = 2 * _I if flags.has_gate else _I
    first = random(_H, wide) if form.transposed else random(wide, _H)
    down = random(_I, _H) if form.transposed else random(_H, _I)
    name = "gate_up_proj" if flags.has_gate else "up_proj"
    parameters = {name: first, "down_proj": down}
    if flags.has_bias:
        parameters |= {f"{name}_bias": random(wide), "down_proj_bias": random(_H)}
    own = {key for key, _ in experts.named_parameters(recurse=False)}
    if set(parameters) != own:
        raise UnsupportedModel(f"parameters {sorted(own)} instead of {sorted(parameters)}")
    tiny = with_parameters(experts, parameters, dict(_small_sizes(experts, form)))
    biases = (parameters.get(f"{name}_bias"), parameters.get("down_proj_bias"))
    return tiny, [
        ExpertWeights(
            (as_array(first[e]),),
            as_array(down[e]),
            () if biases[0] is None else (as_array(biases[0][e]),),
            None if biases[1] is None else as_array(biases[1][e]),
        )
        for e in range(_E)
    ]


def _small_sizes(experts: nn.Module, form: ExpertForm) -> Iterator[tuple[str, int]]:
    """Attributes that repeat a size of the parameters, with the sizes of the tiny ones."""
    count, height, width = experts.get_parameter("down_proj").shape
    hidden, intermediate = (width, height) if form.transposed else (height, width)
    for key, value in vars(experts).items():
        if type(value) is not int:
            continue
        if "expert" in key and value == count:
            yield key, _E
        elif "hidden" in key and value == hidden:
            yield key, _H
        elif value == intermediate and ("intermediate" in key or "dim" in key or "size" in key):
            yield key, _I
        elif value == 2 * intermediate:
            yield key, 2 * _I
