"""The layout of a checkpoint: where each routed expert's weights lie, and which weights are the dense part's.

transformers' own table of checkpoint conversions says which tensors make up an experts module's parameters.
Two layouts can be mapped as they are: one matrix per expert, and all experts' matrices in one tensor. A model
whose checkpoints need any other conversion is refused by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.artifact import ExpertLocations
from faasmoe.experts.expert import ExpertForm
from faasmoe.experts.formats.base import MatrixLocation
from faasmoe.experts.formats.registry import DENSE, format_of
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.adapter.conversions import (
    Concatenate,
    MergeModulelist,
    Transpose,
    WeightConverter,
    WeightRenaming,
    conversions_of,
    dot_natural_key,
    rename_source_key,
)
from faasmoe.model.architecture import Architecture, ExpertsModule
from faasmoe.model.checkpoint.index import Checkpoint


@dataclass(frozen=True)
class Source:
    """The checkpoint tensors that make up one parameter of an experts module."""

    parameter: str  # full name in the model
    converter: WeightConverter | None  # None: a tensor is the parameter, or a piece of it for all experts
    tensors: dict[str, list[str]]  # the converter's source pattern, or the piece, to tensor names, in order

    @property
    def mappable(self) -> bool:
        """Whether every expert's part lies in one piece for each source pattern."""
        operations = self.converter.operations if self.converter else []
        steps = [(type(operation), getattr(operation, "dim", None)) for operation in operations]
        known = steps in ([], [(MergeModulelist, 0)], [(MergeModulelist, 0), (Concatenate, 1)])
        return known or self.whole

    @property
    def names(self) -> list[str]:
        """All its tensors."""
        return [name for names in self.tensors.values() for name in names]

    @property
    def transposition(self) -> Transpose | None:
        """What turns the matrices of one tensor with all experts, if nothing else is done to it."""
        operations = self.converter.operations if self.converter else []
        match operations:
            case [Transpose() as only] if {only.dim0, only.dim1} == {1, 2} and len(self.names) == 1:
                return only
        return None

    @property
    def whole(self) -> bool:
        """Whether each tensor has all experts."""
        operations = self.converter.operations if self.converter else []
        steps = [(type(operation), getattr(operation, "dim", None)) for operation in operations]
        single = all(len(names) == 1 for names in self.tensors.values())
        return not steps or self.transposition is not None or (steps == [(Concatenate, 1)] and single)


@dataclass(frozen=True)
class Layout:
    """A checkpoint's tensors, told apart."""

    dense: dict[str, str | None]  # tensors of the dense part to the parameters that they are; None: parts of one
    experts: dict[str, dict[str, Source]]  # experts module to its parameters ("down_proj") to their sources
    unused: dict[str, str]  # tensors that are no part of the model to the names that they would have in it
    covered: frozenset[str]  # parameters and buffers of the model that come of the dense part's tensors
    linears: dict[str, MatrixLocation]  # linear layers of the dense part to their weights, if these are quantised


def read_layout(architecture: Architecture, checkpoint: Checkpoint) -> Layout:
    """Tell routed experts from the dense part.

    Raises `CheckpointError` if an expert's tensor is missing, or a tensor has a shape or dtype that its weight cannot
    have, `UnsupportedModel` if one cannot be mapped, or is quantised and a part of one of the dense part's.
    """
    model = architecture.meta_model
    conversions = conversions_of(model)
    renamings = [c for c in conversions if isinstance(c, WeightRenaming)]
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    by_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
    targets = {f"{e.name}.{p}": (e, p) for e in architecture.experts for p in e.parameters}
    state: dict[str, Any] = model.state_dict()

    dense: dict[str, str | None] = {}
    unused: dict[str, str] = {}
    covered: set[str] = set()
    linears: dict[str, MatrixLocation] = {}
    grouped = defaultdict[str, dict[str | None, list[str]]](dict)
    for name in sorted(checkpoint, key=dot_natural_key):
        if name in checkpoint.places:
            target, pattern = checkpoint.places[name]
        else:
            target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
            if target not in state and name in state:
                target, pattern = name, None
        if target not in state:
            unused[name] = target
            continue
        location = checkpoint.location(name)
        if state[target].is_floating_point():
            _check_dtype(name, location)
        if target in targets:
            module, parameter = targets[target]
            transposed = _transposed(module, parameter)
            _check_tensor(
                name, location, module.parameters[parameter], whole=pattern is None, transposed=transposed
            )
            grouped[target].setdefault(pattern, []).append(name)
        else:
            _check_tensor(name, location, tuple(state[target].shape), whole=pattern is None)
            dense[name] = target if pattern is None else None
            covered |= {target} if pattern is None else _made(target, by_pattern[pattern])
            if format_of(location) is not DENSE and (layer := _linear(architecture, name, dense[name])):
                linears[layer] = location

    experts: dict[str, dict[str, Source]] = defaultdict(dict)
    for target, (module, parameter) in targets.items():
        if target not in grouped:
            raise _absent(checkpoint, target, [name for name in unused if name.startswith(module.name)])
        experts[module.name][parameter] = _source(architecture.name, target, grouped[target], by_pattern)
    return Layout(dense, dict(experts), unused, frozenset(covered), linears)


def _absent(checkpoint: Checkpoint, target: str, unread: Sequence[str]) -> CheckpointError:
    """`unread` are tensors of the same module that are no part of the model as they are."""
    reason = (
        f"no weight format reads {unread[0]}, and the config declares no quantization (quantization_config) of it"
        if unread
        else "a shard is missing from it"
    )
    return CheckpointError(f"{checkpoint.folder} holds no tensor for {target}: {reason}")


def _made(target: str, converter: WeightConverter) -> set[str]:
    """Parameters that `converter` makes of the tensors from which it makes `target`."""
    first = converter.target_patterns[0]
    return {target.replace(first, pattern) for pattern in converter.target_patterns}


def _check_dtype(name: str, location: MatrixLocation) -> None:
    if isinstance(location, TensorLocation) and location.dtype not in DENSE.dtypes:
        raise CheckpointError(
            f"{location.file}: tensor {name} has the dtype {location.dtype}, but a weight must be one of "
            f"{', '.join(DENSE.dtypes)}; quantized checkpoints are not served, and the config declares no quantization"
        )


def _check_tensor(
    name: str, location: MatrixLocation, wanted: tuple[int, ...], *, whole: bool, transposed: bool = False
) -> None:
    """`wanted` is the shape of the model's tensor that the one at `location` becomes, or a part of if not `whole`.

    `transposed` says that `wanted` holds matrices `[in, out]`.
    """
    first = location.parts[0]
    shape = _stored(wanted, location, transposed)
    if whole and location.shape != shape:
        raise CheckpointError(
            f"{first.file}: tensor {name} has the shape {list(location.shape)}, but with this config it must be "
            f"{list(shape)}"
        )


def _transposed(module: ExpertsModule, parameter: str) -> bool:
    """Whether a parameter of experts holds matrices `[in, out]`."""
    return module.form.transposed and not parameter.endswith("_bias")


def _stored(shape: tuple[int, ...], location: MatrixLocation, transposed: bool) -> tuple[int, ...]:
    """The shape of a weight in files: quantised matrices are `[out, in]`, even if the model's are not."""
    if not transposed or format_of(location) is DENSE:
        return shape
    *stack, ins, outs = shape
    return (*stack, outs, ins)


def _linear(architecture: Architecture, name: str, target: str | None) -> str | None:
    """The linear layer whose weight is the quantised tensor `name`; None: it becomes plain numbers when it is loaded.

    Raises `UnsupportedModel` for a tensor that is only a part of one of the model's.
    """
    if target is None:
        raise UnsupportedModel(
            f"{architecture.name}: the weight {name} is quantized, and is a part of a weight that is not an expert's"
        )
    layer, _, parameter = target.rpartition(".")
    linear = parameter == "weight" and type(architecture.meta_model.get_submodule(layer)) is nn.Linear
    return layer if linear else None


def _source(
    architecture: str,
    target: str,
    patterns: dict[str | None, list[str]],
    by_pattern: dict[str, WeightConverter],
) -> Source:
    """The source of the experts' parameter `target`. Raises `UnsupportedModel` if it cannot be mapped."""
    if None in patterns:
        return Source(target, None, {"": patterns[None]})
    named = {pattern: names for pattern, names in patterns.items() if pattern is not None}
    converter = by_pattern.get(next(iter(named)))
    if converter is None:  # its pieces lie each for itself, stacked
        return Source(target, None, named)
    ordered = {p: named[p] for p in converter.source_patterns if p in named}
    source = Source(target, converter, ordered)
    if not source.mappable:
        raise UnsupportedModel(
            f"{architecture}: {target} cannot be mapped from this checkpoint's layout, it needs {converter.operations}"
        )
    return source


def dense_tensors(layout: Layout, replaced: Container[str]) -> list[str]:
    """Names of the dense part's tensors but for the weights of the modules `replaced`."""
    return [
        name
        for name, target in layout.dense.items()
        if not (target and target.endswith(".weight") and target.removesuffix(".weight") in replaced)
    ]


def locate_experts(
    module: ExpertsModule, sources: dict[str, Source], checkpoint: Checkpoint
) -> tuple[ExpertLocations, ...]:
    """The locations of the weights of each expert of a module.

    Raises `CheckpointError` if there are too few tensors, or one has the wrong shape.
    """
    pieces = {
        parameter: _pieces(
            source, module, module.parameters[parameter], checkpoint, _transposed(module, parameter)
        )
        for parameter, source in sources.items()
    }
    first = "gate_up_proj" if "gate_up_proj" in pieces else "up_proj"
    return tuple(
        ExpertLocations(
            first=pieces[first][e],
            down=pieces["down_proj"][e][0],
            first_bias=_vectors(pieces[f"{first}_bias"][e]) if f"{first}_bias" in pieces else (),
            down_bias=_vectors(pieces["down_proj_bias"][e])[0] if "down_proj_bias" in pieces else None,
        )
        for e in range(module.num_experts)
    )


def stored_form(module: ExpertsModule, experts: Sequence[ExpertLocations]) -> ExpertForm:
    """The form of experts with these weights: quantised matrices are `[out, in]`, even if the module's are not.

    Raises `UnsupportedModel` if only some of the matrices are quantised and the module's own are not `[out, in]`.
    """
    plain = {format_of(matrix) is DENSE for expert in experts for matrix in expert.matrices}
    if not module.form.transposed or plain == {True}:
        return module.form
    if plain == {True, False}:
        raise UnsupportedModel(f"{module.name}: only some of its matrices are quantized, and they are transposed")
    return replace(module.form, transposed=False)


def _vectors(locations: Sequence[MatrixLocation]) -> tuple[TensorLocation, ...]:
    """Biases. Raises `UnsupportedModel` for quantised ones."""
    if foreign := {location.format for location in locations} - {DENSE.name}:
        raise UnsupportedModel(f"biases of experts in the format {', '.join(foreign)} are not served")
    return tuple(part for location in locations for part in location.parts)


def _pieces(
    source: Source, module: ExpertsModule, shape: tuple[int, ...], checkpoint: Checkpoint, transposed: bool
) -> list[tuple[MatrixLocation, ...]]:
    """For each expert, the pieces of its slice of the parameter of shape `shape` [E, ...].

    A parameter may be longer, by what a class has for experts that compute nothing.
    """
    count = module.num_experts
    columns = []
    for names in source.tensors.values():
        locations = [checkpoint.location(name) for name in names]
        if source.whole:
            whole = locations[0]
            locations = [format_of(whole).entry(whole, e) for e in range(count)]
        columns.append(locations)
    for column in columns:
        if len(column) not in {count, shape[0]}:
            raise CheckpointError(f"{source.parameter}: {len(column)} experts in the checkpoint, not {count}")
        for location in column:
            outs, *rest = _stored(shape[1:], location, transposed)
            rows = (outs // len(columns), *rest)
            if location.shape != rows:
                raise CheckpointError(
                    f"{source.parameter}: a tensor in {location.parts[0].file} has shape {list(location.shape)}, "
                    f"not {list(rows)}"
                )
    return list(zip(*(column[:count] for column in columns), strict=True))
