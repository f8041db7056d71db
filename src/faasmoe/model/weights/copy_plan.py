"""What a copy of a checkpoint holds: its large matrices converted, or its packed ones in a format that kernels read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from faasmoe.errors import OptionError, UnsupportedModel
from faasmoe.experts.artifact import ExpertLocations
from faasmoe.experts.formats.base import MatrixLocation, WeightFormat
from faasmoe.experts.formats.registry import DENSE, by_name, format_of
from faasmoe.model.architecture import Architecture, ExpertsModule
from faasmoe.model.checkpoint.index import Checkpoint
from faasmoe.model.weights.layout import Layout, locate_experts
from faasmoe.model.weights.quantised import QuantisedCopy
from faasmoe.model.weights.quantised_file import PackedMatrix, QuantisedFile, SourceMatrix
from faasmoe.util.folders import copy_cache
from faasmoe.util.folders.user_cache import user_cache

_FORMAT = 3  # of the copy; another one makes another copy


def plan_copy(
    name: str, format: WeightFormat, architecture: Architecture, layout: Layout, checkpoint: Checkpoint
) -> QuantisedCopy:
    """Plan the copy in `format` of a checkpoint that is served as `name`.

    It has all routed experts, and the dense part's linear layers.

    Raises `OptionError` if the checkpoint is quantised itself, or the experts have sizes that the kernel does not take.
    """
    if others := sorted({checkpoint.location(tensor).format for tensor in checkpoint} - {DENSE.name}):
        raise OptionError(
            f"--quantize {format.name}: {checkpoint.folder} holds weights in the format {', '.join(others)} already; "
            "serve it without --quantize"
        )
    sources, folder = _place(name, format, checkpoint)
    files: list[QuantisedFile] = []
    linears: dict[str, MatrixLocation] = {}
    for file, members in _dense_files(architecture, layout, checkpoint, folder, format):
        files.append(file)
        linears.update(zip(members, file.locations(), strict=True))
    experts = {}
    for module in architecture.experts:
        plain = locate_experts(module, layout.experts[module.name], checkpoint)
        _check_sizes(architecture.name, plain[0], module, format)
        matrices = list(_matrices(module, plain))
        file = QuantisedFile(folder / f"experts-{module.layer:03}.safetensors", format, matrices)
        files.append(file)
        experts[module.name] = tuple(_moved(plain, file))
    return QuantisedCopy(
        format=format,
        cause=f"--quantize {format.name}",
        folder=folder,
        sources=sources,
        files=tuple(files),
        linears=linears,
        experts=experts,
    )


def plan_packed_copy(
    name: str, architecture: Architecture, layout: Layout, checkpoint: Checkpoint
) -> QuantisedCopy | None:
    """Plan the copy of those weights of a checkpoint that are packed (`WeightFormat.kept_as`); None: there are none.

    Raises `CheckpointError` for groups that kernels cannot read, `UnsupportedModel` if only some experts are packed.
    """
    packed = {its.name: its for tensor in checkpoint if (its := format_of(checkpoint.location(tensor))).kept_as}
    if not packed:
        return None
    (source, its), *_ = packed.items()
    format = by_name(its.kept_as)
    sources, folder = _place(name, format, checkpoint)
    layers = {name: location for name, location in layout.linears.items() if format_of(location).kept_as}
    matrices = [PackedMatrix(f"{layer}.weight", location) for layer, location in layers.items()]
    dense = QuantisedFile(folder / "dense.safetensors", format, matrices)
    files, experts = [dense] if layers else [], {}
    for module in architecture.experts:
        found = locate_experts(module, layout.experts[module.name], checkpoint)
        experts[module.name] = found
        if _packed(architecture, module, found):
            matrices = [
                PackedMatrix(f"{module.name}.{number}.{place}", location)
                for number, expert in enumerate(found)
                for place, location in enumerate(expert.matrices)
            ]
            files.append(QuantisedFile(folder / f"experts-{module.layer:03}.safetensors", format, matrices))
            experts[module.name] = tuple(_moved(found, files[-1]))
    return QuantisedCopy(
        format=format,
        cause=f"a checkpoint in {source}",
        folder=folder,
        sources=sources,
        files=tuple(files),
        linears=layout.linears | dict(zip(layers, dense.locations(), strict=True)),
        experts=experts,
    )


def _packed(architecture: Architecture, module: ExpertsModule, experts: Sequence[ExpertLocations]) -> bool:
    """Whether a module's experts are packed. Raises `UnsupportedModel` if only some matrices are."""
    kinds = {bool(format_of(matrix).kept_as) for expert in experts for matrix in expert.matrices}
    if len(kinds) > 1:
        raise UnsupportedModel(f"{architecture.name}: only some matrices of {module.name} are quantized")
    return kinds == {True}


def _place(name: str, format: WeightFormat, checkpoint: Checkpoint) -> tuple[tuple[copy_cache.State, ...], Path]:
    """The states of a checkpoint's files, and the folder for its copy in `format`."""
    sources = tuple(map(copy_cache.state, sorted({file.resolve() for file in checkpoint.files})))
    return sources, user_cache() / format.name / f"{name.replace('/', '--')}-{_identity(sources)}"


def _dense_files(
    architecture: Architecture, layout: Layout, checkpoint: Checkpoint, folder: Path, format: WeightFormat
) -> Iterator[tuple[QuantisedFile, list[str]]]:
    """The dense part's files, each with the linear layers that it holds: the head may be in a format of its own."""
    model = architecture.meta_model
    formats = {"dense": format, "head": by_name(format.head) if format.head else format}
    parts: dict[str, dict[str, SourceMatrix]] = {part: {} for part in formats}
    for name, tensor in _linears(architecture, layout).items():
        layer = model.get_submodule(name)
        part = "head" if format.head and layer is model.get_output_embeddings() else "dense"
        if layer.in_features % formats[part].multiple == 0:
            parts[part][name] = SourceMatrix(f"{name}.weight", checkpoint.plain(tensor))
    for part, its in parts.items():
        if its:
            yield QuantisedFile(folder / f"{part}.safetensors", formats[part], list(its.values())), list(its)


def convertible(architecture: Architecture) -> dict[str, nn.Linear]:
    """Linear layers of the dense part whose weights may be converted, by name.

    Routers and gates of shared experts stay as they are: layers with no more outputs than there are experts.
    """
    least = max(module.num_experts for module in architecture.experts)
    return {
        name: layer
        for name, layer in architecture.meta_model.named_modules()
        if type(layer) is nn.Linear and layer.out_features > least  # a subclass may compute something else
    }


def _linears(architecture: Architecture, layout: Layout) -> dict[str, str]:
    """Layers that are `convertible`, and the checkpoint's tensor of each one's weight."""
    stored = {target: name for name, target in layout.dense.items() if target}
    tied = getattr(architecture.meta_model, "all_tied_weights_keys", {})
    found = {}
    for name in convertible(architecture):
        weight = f"{name}.weight"
        if source := stored.get(weight) or stored.get(tied.get(weight, "")):
            found[name] = source
    return found


def _matrices(module: ExpertsModule, experts: tuple[ExpertLocations, ...]) -> Iterator[SourceMatrix]:
    for number, expert in enumerate(experts):
        for place, source in enumerate(expert.matrices):
            (plain,) = source.parts
            yield SourceMatrix(f"{module.name}.{number}.{place}", plain, module.form.transposed)


def _moved(experts: tuple[ExpertLocations, ...], file: QuantisedFile) -> Iterator[ExpertLocations]:
    """The experts with their matrices in `file`; biases stay where they are."""
    places = file.locations()
    for expert in experts:
        first = tuple(next(places) for _ in expert.first)
        yield replace(expert, first=first, down=next(places))


def _check_sizes(architecture: str, expert: ExpertLocations, module: ExpertsModule, format: WeightFormat) -> None:
    for location in expert.matrices:
        width = location.shape[0 if module.form.transposed else 1]
        if width % format.multiple:
            raise OptionError(
                f"--quantize {format.name}: {architecture} has experts with {width} inputs, and the kernel takes "
                f"multiples of {format.multiple}; serve it without --quantize"
            )


def _identity(sources: Sequence[copy_cache.State]) -> str:
    """A digest of the states of a checkpoint's files: another one if any of them is replaced or written to."""
    return hashlib.sha256(json.dumps([_FORMAT, sources]).encode()).hexdigest()[:16]
