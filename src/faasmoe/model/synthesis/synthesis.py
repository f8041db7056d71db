"""Checkpoints of random weights in a published geometry, written as a stream.

Names and shapes of tensors are derived: the model is built on the meta device, and transformers' own table of
conversions is run backwards, as it would be when saving. Weights are cut from one pool of normal numbers at
random offsets, so that writing runs at disk speed and memory stays at the size of the pool.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerFast

from faasmoe.model.adapter.conversions import revert_weight_conversion
from faasmoe.model.architecture import inspect_architecture
from faasmoe.model.checkpoint.weight_files import INDEX_FILE, SINGLE_FILE
from faasmoe.model.synthesis.geometries import PUBLISHED, sizes_of
from faasmoe.model.synthesis.new_folder import new_folder
from faasmoe.model.synthesis.published import SETTINGS, PublishedTensor, published_tensors, random_numbers
from faasmoe.model.tensors import DTYPES, as_array
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SHARD_BYTES = 2_000_000_000
_POOL = 1 << 25  # numbers of each dtype
_CHUNK = 1 << 23  # numbers written at once
_END_TOKEN = "<|endoftext|>"  # noqa: S105 - no secret


class Synthesis:
    """A checkpoint to be. Raises `OptionError` for an unknown name or sizes that make no model."""

    def __init__(
        self,
        name: str,
        layers: int | None = None,
        vocab: int | None = None,
        seed: int = 0,
        *,
        published: bool = False,
    ) -> None:
        """With `published` weights are in the format in which the model is published, else in bfloat16."""
        self.config = published_config(name, layers, vocab)
        self._seed = seed
        shapes = _published_shapes(self.config)
        format = PUBLISHED.get(name) if published else None
        self._tensors = published_tensors(shapes, format)
        if format:
            self.config.quantization_config = SETTINGS[format]
        self.parameters = sum(map(math.prod, shapes.values()))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def write(self, folder: Path, advance: Callable[[int], object] = lambda _: None) -> None:
        """Write config, tokenizer and shards into `folder`; `advance` is told of each chunk's bytes.

        Raises `OptionError` if the folder is not empty, its disk has no room, or it cannot be written. Whatever ends it
        before it is complete, nothing is left of it.
        """
        with new_folder(folder, self.nbytes):
            self._write(folder, advance)

    def _write(self, folder: Path, advance: Callable[[int], object]) -> None:
        pool = _Pool(self._seed)
        shards = self._shards()
        files: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = SINGLE_FILE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            files |= dict.fromkeys(names, file)
            with (folder / file).open("wb") as stream:
                self._write_shard(stream, names, pool, advance)
        if len(shards) > 1:
            index = {"metadata": {"total_size": self.nbytes}, "weight_map": files}
            (folder / INDEX_FILE).write_text(json.dumps(index, indent=1))
        self.config.save_pretrained(folder)
        _byte_tokenizer().save_pretrained(folder)

    def _shards(self) -> list[list[str]]:
        shards: list[list[str]] = [[]]
        size = 0
        for name, tensor in self._tensors.items():
            if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
                shards.append([])
                size = 0
            shards[-1].append(name)
            size += tensor.nbytes
        return shards

    def _write_shard(
        self, stream: BinaryIO, names: list[str], pool: _Pool, advance: Callable[[int], object]
    ) -> None:
        header, at = {}, 0
        for name in names:
            tensor = self._tensors[name]
            end = at + tensor.nbytes
            header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]}
            at = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            for chunk in pool.values(self._tensors[name]):
                stream.write(as_array(chunk).data)
                advance(chunk.nbytes)


def published_config(name: str, layers: int | None = None, vocab: int | None = None) -> PretrainedConfig:
    """The config of a published geometry. Raises `OptionError` for an unknown name or sizes that make no model."""
    return _config(sizes_of(name, layers, vocab))


class _Pool:
    """A stock of random numbers of each dtype, and where to cut from it."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._stock: dict[str, torch.Tensor] = {}

    def values(self, tensor: PublishedTensor) -> Iterator[torch.Tensor]:
        """The tensor's values in order, in chunks."""
        if tensor.fill is None and tensor.dtype not in self._stock:
            self._stock[tensor.dtype] = random_numbers(tensor.dtype, _POOL, self._generator)
        left = math.prod(tensor.shape)
        while left:
            count = min(left, _CHUNK)
            if tensor.fill is None:
                start = int(torch.randint(0, _POOL - count + 1, (), generator=self._generator))
                yield self._stock[tensor.dtype][start : start + count]
            else:
                yield torch.full((count,), tensor.fill, dtype=DTYPES[tensor.dtype])
            left -= count


def _config(sizes: dict[str, object]) -> PretrainedConfig:
    own = {k: v for k, v in sizes.items() if k != "model_type"}
    ends = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256}
    return AutoConfig.for_model(
        str(sizes["model_type"]), **{**ends, **own}, tie_word_embeddings=False, dtype="bfloat16"
    )


def _published_shapes(config: PretrainedConfig) -> dict[str, tuple[int, ...]]:
    model = inspect_architecture(config).meta_model
    state = revert_weight_conversion(model, model.state_dict())
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and an end token; ids above that decode to nothing."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_END_TOKEN])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END_TOKEN)
