"""Writes a Qwen2-MoE checkpoint as llama.cpp reads it. Needs gguf."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from numpy.typing import NDArray
from safetensors import safe_open

from faasmoe.errors import OptionError

# names in GGUF (ggml-org/llama.cpp, docs/gguf.md and gguf-py's tensor_mapping) by those in the checkpoint
_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output": "lm_head",
    "output_norm": "model.norm",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_EXACT = ("norm", "ffn_gate_inp")  # llama.cpp wants these in float32


class GGUFSource:
    """Tensors of a folder of safetensors files, by name."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        files = [safe_open(str(path), "pt") for path in sorted(folder.glob("*.safetensors"))]
        self._files = {name: file for file in files for name in file.keys()}  # type: ignore[no-untyped-call]  # noqa: SIM118 - no mapping

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[name].get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor

    def shape(self, name: str) -> list[int]:
        """Of a tensor, which is not read."""
        shape: list[int] = self._files[name].get_slice(name).get_shape()  # type: ignore[no-untyped-call]
        return shape


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor of the file: one of the checkpoint's, or several of one shape side by side."""

    name: str
    sources: Sequence[str]
    stacked: bool
    shape: tuple[int, ...]
    kind: GGMLQuantizationType

    @property
    def stored(self) -> tuple[int, ...]:
        """Its shape in bytes. Raises `ValueError` for rows that the kind does not fit."""
        return tuple(gguf.quants.quant_shape_to_byte_shape(self.shape, self.kind))

    def read(self, checkpoint: GGUFSource) -> NDArray[Any]:
        """Its bytes. Of the checkpoint, one tensor is in memory at a time."""
        data = np.empty(self.stored, np.uint8)
        for place, source in zip(data if self.stacked else [data], self.sources, strict=True):
            numbers = checkpoint[source].float().numpy().reshape(self.shape[self.stacked :])
            place[...] = gguf.quants.quantize(numbers, self.kind).view(np.uint8)
        return data


def write(folder: Path, path: Path, kind: GGMLQuantizationType) -> None:
    """The checkpoint as a GGUF file without tokenizer, of which one tensor is in memory at a time.

    Raises `OptionError` if it is of another kind than Qwen2-MoE.
    """
    checkpoint = GGUFSource(folder)
    writer = gguf.GGUFWriter(path, "qwen2moe")
    _write_config(writer, checkpoint.config)
    tensors = list(_tensors(checkpoint, kind))
    for tensor in tensors:
        nbytes = int(np.prod(tensor.stored))
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), nbytes, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.read(checkpoint))
    writer.close()


def _tensors(checkpoint: GGUFSource, kind: GGMLQuantizationType) -> Iterator[GGUFTensor]:
    def one(name: str, source: str) -> GGUFTensor:
        shape = checkpoint.shape(source)
        its = tuple(shape[1:] if shape[0] == 1 else shape)
        exact = len(its) == 1 or name.split(".")[-2].startswith(_EXACT) or "_norm" in name
        return GGUFTensor(name, [source], False, its, GGMLQuantizationType.F32 if exact else kind)

    for ours, theirs in _OUTSIDE.items():
        source = f"{theirs}.weight" if f"{theirs}.weight" in checkpoint else "model.embed_tokens.weight"
        yield one(f"{ours}.weight", source)
    for layer in range(checkpoint.config["num_hidden_layers"]):
        for ours, theirs in _IN_LAYER.items():
            for part in ("weight", "bias"):
                if (source := f"model.layers.{layer}.{theirs}.{part}") in checkpoint:
                    yield one(f"blk.{layer}.{ours}.{part}", source)
        for which in ("gate", "up", "down"):
            sources = [
                f"model.layers.{layer}.mlp.experts.{expert}.{which}_proj.weight"
                for expert in range(checkpoint.config["num_experts"])
            ]
            shape = (len(sources), *checkpoint.shape(sources[0]))
            yield GGUFTensor(f"blk.{layer}.ffn_{which}_exps.weight", sources, True, shape, kind)


def _write_config(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    if config["model_type"] != "qwen2_moe":
        raise OptionError(f"--strategy llama.cpp: supports qwen2_moe only, not {config['model_type']}")
    rope = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(float(rope))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
