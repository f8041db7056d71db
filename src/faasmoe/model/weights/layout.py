"""Where every routed expert's weights lie in a checkpoint, and which tensors belong to the dense part.

transformers' own table of checkpoint conversions says which tensors make up an experts module's parameters.
Two layouts can be mapped as they are: one matrix per expert, and all experts' matrices in one tensor. A model
whose checkpoints need any other conversion is refused by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.artifact import ExpertLocations
from faasmoe.experts.dtypes import WEIGHTS
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.adapter.conversions import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    get_model_conversion_mapping,
    rename_source_key,
)
from faasmoe.model.architecture import Architecture, ExpertsModule
from faasmoe.model.checkpoint.index import Checkpoint


@dataclass(frozen=True)
class Source:
    """The checkpoint tensors that make up one parameter of an experts module."""

    parameter: str  # full name in the model
    converter: WeightConverter | None  # None: the tensor is the parameter
    tensors: dict[str, list[str]]  # the converter's source pattern to tensor names, in order

    @property
    def mappable(self) -> bool:
        """Whether every expert's part lies in one piece for each source pattern."""
        operations = self.converter.operations if self.converter else []
        steps = [(type(operation), getattr(operation, "dim", None)) for operation in operations]
        return steps in ([], [(MergeModulelist, 0)], [(MergeModulelist, 0), (Concatenate, 1)])


@dataclass(frozen=True)
class Layout:
    """A checkpoint's tensors, told apart."""

    dense: dict[str, str | None]  # tensors of the dense part to the parameters that they are; None: parts of one
    experts: dict[str, dict[str, Source]]  # experts module to its parameters ("down_proj") to their sources
    unused: dict[str, str]  # tensors that are no part of the model to the names that they would have in it
    covered: frozenset[str]  # parameters and buffers of the model that come of the dense part's tensors


def read_layout(architecture: Architecture, checkpoint: Checkpoint) -> Layout:
    """Tell routed experts from the dense part.

    Raises `CheckpointError` if an expert's tensor is missing, or a tensor has a shape or dtype that its weight cannot
    have, `UnsupportedModel` if one cannot be mapped.
    """
    model = architecture.meta_model
    conversions = get_model_conversion_mapping(model)
    renamings = [c for c in conversions if isinstance(c, WeightRenaming)]
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    by_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
    targets = {f"{e.name}.{p}": (e.name, p) for e in architecture.experts for p in e.parameters}
    state: dict[str, Any] = model.state_dict()

    dense: dict[str, str | None] = {}
    unused: dict[str, str] = {}
    covered: set[str] = set()
    grouped = defaultdict[str, dict[str | None, list[str]]](dict)
    for name in sorted(checkpoint, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if target not in state and name in state:
            target, pattern = name, None
        if target not in state:
            unused[name] = target
            continue
        _check_tensor(name, checkpoint.location(name), state[target], whole=pattern is None)
        if target in targets:
            grouped[target].setdefault(pattern, []).append(name)
        else:
            dense[name] = target if pattern is None else None
            covered |= {target} if pattern is None else _made(target, by_pattern[pattern])

    experts: dict[str, dict[str, Source]] = defaultdict(dict)
    for target, (module, parameter) in targets.items():
        patterns = grouped.get(target)
        if not patterns:
            raise CheckpointError(f"{checkpoint.folder} holds no tensor for {target}: a shard is missing from it")
        source = _source(target, patterns, by_pattern)
        if not source.mappable:
            raise UnsupportedModel(
                f"{architecture.name}: {target} cannot be mapped from this checkpoint's layout, it needs "
                f"{source.converter.operations if source.converter else 'a conversion'}"
            )
        experts[module][parameter] = source
    return Layout(dense, dict(experts), unused, frozenset(covered))


def _made(target: str, converter: WeightConverter) -> set[str]:
    """All that `converter` makes of what it takes for `target`."""
    first = converter.target_patterns[0]
    return {target.replace(first, pattern) for pattern in converter.target_patterns}


def _check_tensor(name: str, location: TensorLocation, wanted: Tensor, whole: bool) -> None:
    """`wanted` is the tensor of the model that the one at `location` becomes, or a part of if not `whole`."""
    if wanted.is_floating_point() and location.dtype not in WEIGHTS:
        raise CheckpointError(
            f"{location.file}: tensor {name} has the dtype {location.dtype}, but a weight must be one of "
            f"{', '.join(WEIGHTS)}; quantized checkpoints are not served, and the config declares no quantization"
        )
    if whole and location.shape != tuple(wanted.shape):
        raise CheckpointError(
            f"{location.file}: tensor {name} has the shape {list(location.shape)}, but with this config it must be "
            f"{list(wanted.shape)}"
        )


def _source(target: str, patterns: dict[str | None, list[str]], by_pattern: dict[str, WeightConverter]) -> Source:
    if None in patterns:
        return Source(target, None, {"": patterns[None]})
    named = {pattern: names for pattern, names in patterns.items() if pattern is not None}
    converter = by_pattern[next(iter(named))]
    ordered = {p: named[p] for p in converter.source_patterns if p in named}
    return Source(target, converter, ordered)


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
    """Where each expert of a module lies.

    Raises `CheckpointError` if there are too few tensors, or one has the wrong shape.
    """
    pieces = {
        parameter: _pieces(source, module.parameters[parameter], checkpoint)
        for parameter, source in sources.items()
    }
    first = "gate_up_proj" if "gate_up_proj" in pieces else "up_proj"
    return tuple(
        ExpertLocations(
            first=pieces[first][e],
            down=pieces["down_proj"][e][0],
            first_bias=pieces[f"{first}_bias"][e] if f"{first}_bias" in pieces else (),
            down_bias=pieces["down_proj_bias"][e][0] if "down_proj_bias" in pieces else None,
        )
        for e in range(module.num_experts)
    )


def _pieces(source: Source, shape: tuple[int, ...], checkpoint: Checkpoint) -> list[tuple[TensorLocation, ...]]:
    """For each expert, the pieces of its slice of the parameter of shape `shape` [E, ...]."""
    columns = []
    for names in source.tensors.values():
        locations = [checkpoint.location(name) for name in names]
        columns.append([locations[0][e] for e in range(shape[0])] if source.converter is None else locations)
    wanted = tuple(shape[1:])
    for column in columns:
        if len(column) != shape[0]:
            raise CheckpointError(f"{source.parameter}: {len(column)} experts in the checkpoint, not {shape[0]}")
        for location in column:
            rows = (wanted[0] // len(columns), *wanted[1:])
            if location.shape != rows:
                raise CheckpointError(
                    f"{source.parameter}: a tensor in {location.file} has shape {list(location.shape)}, "
                    f"not {list(rows)}"
                )
    return list(zip(*columns, strict=True))
