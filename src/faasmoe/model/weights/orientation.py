"""Experts that are published transposed: transformers' table has a transposition for them, which serving does without.

Kernels read matrices either way, so the experts' form and shapes become those of the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from faasmoe.errors import UnsupportedModel
from faasmoe.experts.formats.registry import DENSE, format_of
from faasmoe.model.architecture import Architecture, ExpertsModule
from faasmoe.model.checkpoint.index import Checkpoint
from faasmoe.model.weights.layout import Layout, Source


def as_stored(architecture: Architecture, layout: Layout, checkpoint: Checkpoint) -> Architecture:
    """The architecture with experts as they lie in files.

    Raises `UnsupportedModel` if only some matrices of a layer are transposed.
    """
    modules = (_as_stored(module, layout.experts[module.name], checkpoint) for module in architecture.experts)
    return replace(architecture, experts=tuple(modules))


def _as_stored(module: ExpertsModule, sources: Mapping[str, Source], checkpoint: Checkpoint) -> ExpertsModule:
    matrices = {name: shape for name, shape in module.parameters.items() if len(shape) == 3}
    turned = {name for name, shape in matrices.items() if _is_turned(sources[name], shape, checkpoint)}
    if not turned:
        return module
    if turned != set(matrices):
        raise UnsupportedModel(
            f"{module.name}: only some of its matrices are published transposed: {sorted(turned)}"
        )
    shapes = {name: (count, ins, outs) for name, (count, outs, ins) in matrices.items()}
    form = replace(module.form, transposed=not module.form.transposed)
    return replace(module, form=form, parameters={**module.parameters, **shapes})


def _is_turned(source: Source, shape: tuple[int, ...], checkpoint: Checkpoint) -> bool:
    """Whether the tensor of a parameter of `shape` `[E, ...]` is the transposed of it."""
    if (transposition := source.transposition) is None:
        return False
    location = checkpoint.location(source.names[0])
    if format_of(location) is not DENSE:
        raise UnsupportedModel(f"{source.parameter}: its weights are quantized, and published transposed")
    return not (transposition.check_dims and location.shape == shape)
