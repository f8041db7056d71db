"""A Qwen2-MoE checkpoint as llama.cpp reads it. Needs gguf and llama-cpp-python."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import torch
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
_MIXTURES = {
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "MXFP4_MOE": llama_cpp.LLAMA_FTYPE_MOSTLY_MXFP4_MOE,
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


def write(folder: Path, path: Path, kind: gguf.GGMLQuantizationType) -> None:
    """The checkpoint as a GGUF file without tokenizer. Raises `OptionError` if it is of another kind than Qwen2-MoE."""
    checkpoint = GGUFSource(folder)
    writer = gguf.GGUFWriter(path, "qwen2moe")
    _write_config(writer, checkpoint.config)

    def put(name: str, tensor: torch.Tensor) -> None:
        data = tensor.float().numpy()
        if tensor.dim() == 1 or name.split(".")[-2].startswith(_EXACT) or "_norm" in name:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)

    for ours, theirs in _OUTSIDE.items():
        source = f"{theirs}.weight" if f"{theirs}.weight" in checkpoint else "model.embed_tokens.weight"
        put(f"{ours}.weight", checkpoint[source])
    for layer in range(checkpoint.config["num_hidden_layers"]):
        for ours, theirs in _IN_LAYER.items():
            for part in ("weight", "bias"):
                if (source := f"model.layers.{layer}.{theirs}.{part}") in checkpoint:
                    tensor = checkpoint[source]
                    put(f"blk.{layer}.{ours}.{part}", tensor[0] if len(tensor) == 1 else tensor)
        for which in ("gate", "up", "down"):
            names = [
                f"model.layers.{layer}.mlp.experts.{expert}.{which}_proj.weight"
                for expert in range(checkpoint.config["num_experts"])
            ]
            put(f"blk.{layer}.ffn_{which}_exps.weight", torch.stack([checkpoint[name] for name in names]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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


def made(folder: Path, kind: str = "BF16") -> Path:
    """The file beside the checkpoint that holds its weights in this type, written if it is not there yet.

    `kind` is a type of one tensor (`BF16`, `Q8_0`), or a mixture of types that llama.cpp makes of a file in bfloat16
    (`Q4_K_M`, `MXFP4_MOE`). Raises `OptionError` for a checkpoint of another kind than Qwen2-MoE.
    """
    path = folder.with_name(f"{folder.name}-{kind.lower()}.gguf")
    if not path.exists():
        unfinished = Path(f"{path}.part")
        if kind in _MIXTURES:
            _mix(made(folder), unfinished, _MIXTURES[kind])
        else:
            write(folder, unfinished, gguf.GGMLQuantizationType[kind])
        unfinished.rename(path)
    return path


def _mix(source: Path, path: Path, mixture: int) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = mixture
    if code := llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(params)):
        raise RuntimeError(f"llama_model_quantize returned {code} for {source}")
