"""The tensors of a checkpoint as its authors published them: plain ones, or codes and scales.

Codes are random and scales are all the same, chosen so that weights spread as those of a plain checkpoint do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from faasmoe.experts.dtypes import BY_NAME
from faasmoe.experts.formats.fp8 import BLOCK
from faasmoe.experts.formats.mxfp4 import E2M1

Shape = tuple[int, ...]

STD = 0.02  # of weights: transformers' initializer_range of these models
_CODES_STD = 64.0  # of random codes in fp8: some are subnormal, none is beyond 448
_KEPT = (
    "embed_tokens.weight",
    "lm_head.weight",
    "mlp.gate.weight",
    "indexer.weights_proj.weight",
)  # that DeepSeek does not quantise


class PublishedTensor(NamedTuple):
    """A tensor of a checkpoint to be."""

    dtype: str  # as safetensors has it
    shape: Shape
    fill: float | None = None  # of all its numbers; None: random ones

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return BY_NAME[self.dtype].itemsize * int(np.prod(self.shape, dtype=np.int64))


SETTINGS: dict[str, dict[str, Any]] = {
    "mxfp4": {"quant_method": "mxfp4"},
    "fp8": {
        "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic",
    },
}  # fmt: skip
"""`quantization_config` of each format."""


def published_tensors(shapes: Mapping[str, Shape], format: str | None) -> dict[str, PublishedTensor]:
    """The tensors of a checkpoint whose plain tensors have `shapes`; `format` None: these, in bfloat16."""
    arrays = {None: _plain, "mxfp4": _mxfp4, "fp8": _fp8}[format]
    return {name: tensor for weight, shape in shapes.items() for name, tensor in arrays(weight, shape)}


def random_numbers(dtype: str, count: int, generator: torch.Generator) -> Tensor:
    """`count` random numbers of a tensor in `dtype`, whose weights spread with `STD`."""
    if dtype == "U8":
        return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    normal = torch.randn(count, generator=generator)
    if dtype == "F8_E4M3":
        return (normal * _CODES_STD).to(torch.float8_e4m3fn).view(torch.uint8)
    return (normal * STD).bfloat16()


def _plain(name: str, shape: Shape) -> Iterator[tuple[str, PublishedTensor]]:
    """Norms are one, other vectors zero, matrices random."""
    yield name, PublishedTensor("BF16", shape, None if len(shape) > 1 else float("norm" in name))


def _mxfp4(name: str, shape: Shape) -> Iterator[tuple[str, PublishedTensor]]:
    """As gpt-oss has its experts, whose plain tensors are `[E, in, out]`."""
    if len(shape) != 3:
        yield from _plain(name, shape)
        return
    experts, ins, outs = shape
    scale = 127 + round(float(np.log2(STD / np.std(E2M1))))
    yield f"{name}_blocks", PublishedTensor("U8", (experts, outs, ins // 32, 16))
    yield f"{name}_scales", PublishedTensor("U8", (experts, outs, ins // 32), scale)


def _fp8(name: str, shape: Shape) -> Iterator[tuple[str, PublishedTensor]]:
    """As DeepSeek V3 has its linear layers, in blocks."""
    if len(shape) != 2 or name.endswith(_KEPT):
        yield from _plain(name, shape)
        return
    yield name, PublishedTensor("F8_E4M3", shape)
    blocks = tuple(-(-size // BLOCK) for size in shape)
    yield f"{name}_scale_inv", PublishedTensor("F32", blocks, STD / _CODES_STD)
