"""GGUF files of tiny models, as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import Tensor
from transformers import PreTrainedModel

from tests.tiny import save_tiny

SIZES = {  # multiples of 256, the weights of a block of Q4_K and Q6_K
    "hidden_size": 256,
    "intermediate_size": 256,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
}
KINDS = {
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
    "gpt_oss": "gpt-oss",
    "mixtral": "llama",
    "olmoe": "olmoe",
    "glm4_moe": "glm4moe",
    "dots1": "dots1",
    "minimax_m2": "minimax-m2",
}
# what llama.cpp does whatever the classes' defaults are
FIXED = {"qwen3_moe": {"norm_topk_prob": True}, "mixtral": {"sliding_window": None}}
Choose = Callable[[str], GGMLQuantizationType]  # the type of a matrix, by its name in the file


def save_model(model_type: str, folder: Path, **changes: object) -> PreTrainedModel:
    """A checkpoint whose matrices GGUF's formats can hold, with numbers other than 0 and 1 in every vector."""
    from transformers import AutoConfig

    known = AutoConfig.for_model(model_type).to_dict()
    sizes = {key: size for key, size in SIZES.items() if key in known}
    model = save_tiny(model_type, folder, **sizes, **FIXED.get(model_type, {}), **changes)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for n, b in model.named_buffers() if "correction" in n)]:
            if tensor.dim() < 2 or "bias" in _name_of(model, tensor):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)
    return model


def _name_of(model: PreTrainedModel, wanted: Tensor) -> str:
    return next((name for name, tensor in model.named_parameters() if tensor is wanted), "")


def write_gguf(
    model: PreTrainedModel,
    file: Path,
    choose: Choose,
    more: Mapping[str, int] | None = None,
    *,
    extra: Mapping[str, np.ndarray[Any, Any]] | None = None,
    without: str = "",
    beyond: bool = False,
) -> None:
    """Write `file` with the weights of `model` in the types that `choose` gives, which the model then has as well.

    `more` is metadata, `extra` further tensors, and the one named `without` is left out. With `beyond` there is one
    more layer, which is a copy of the first.
    """
    config = model.config
    writer = gguf.GGUFWriter(file, KINDS[config.model_type])
    write_metadata(writer, model, dict(more or {}), config.num_hidden_layers + beyond)
    with torch.no_grad():
        for name, parameter, tensor, back in _tensors(model):
            kind = choose(name) if tensor.dim() > 1 and name.endswith("weight") else GGMLQuantizationType.F32
            stored, exact = _stored(tensor, kind)
            if name != without:
                writer.add_tensor(name, stored, raw_dtype=kind)
            if beyond and name.startswith("blk.0."):
                again = name.replace("blk.0.", f"blk.{config.num_hidden_layers}.")
                writer.add_tensor(again, stored, raw_dtype=kind)
            parameter.copy_(back(exact))
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored(tensor: Tensor, kind: GGMLQuantizationType) -> tuple[np.ndarray[Any, Any], Tensor]:
    """The bytes of a tensor, and the numbers that they mean."""
    if kind == GGMLQuantizationType.F32:
        return tensor.float().numpy(), tensor.float()
    if kind in (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K):  # which `gguf` cannot write
        from tests.unit.experts.formats.gguf.drawn import FORMATS, drawn

        format = next(format for format in FORMATS if format.name == kind.name.lower())
        rows = tensor.numel() // tensor.shape[-1]
        blocks = drawn(format, rows, tensor.shape[-1] // 256, seed=rows).blocks.copy()
        _tame(blocks.reshape(-1, format.layout.nbytes), kind)
        stored = blocks.reshape(*tensor.shape[:-1], -1)
    else:
        stored = gguf.quants.quantize(tensor.float().numpy(), kind)
    return stored, torch.from_numpy(gguf.quants.dequantize(stored, kind)).reshape(tensor.shape)


def _tame(blocks: np.ndarray[Any, Any], kind: GGMLQuantizationType) -> None:
    """Make drawn blocks hold numbers of the size of weights, on both sides of zero."""
    if kind == GGMLQuantizationType.Q4_K:
        blocks[:, 0:2] = np.full((len(blocks), 1), 0.0005, "<f2").view(np.uint8)
        blocks[:, 2:4] = np.full((len(blocks), 1), 0.004, "<f2").view(np.uint8)
    else:
        blocks[:, 208:210] = np.full((len(blocks), 1), 0.00005, "<f2").view(np.uint8)


def _tensors(model: PreTrainedModel) -> Any:
    """Name in the file, parameter, tensor as the file has it, and how to get the parameter from that."""
    config = model.config
    (number,) = [n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == KINDS[config.model_type]]
    table = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    tied = set(model.all_tied_weights_keys)
    for name, parameter in model.state_dict().items():
        if name in tied:
            continue
        tensor = parameter.detach()
        base, _, ending = name.rpartition(".")
        if ".experts." in name:
            yield from _experts(config.model_type, name, parameter)
        elif ending == "e_score_correction_bias":
            yield f"{table.get_name(name.removesuffix('_bias'))}.bias", parameter, tensor, _same
        elif ending not in ("weight", "bias"):
            yield f"{table.get_name(name)}.weight", parameter, tensor, _same
        elif config.model_type == "mixtral" and base.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if base.endswith("q_proj") else config.num_key_value_heads
            turned = tensor.reshape(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
            yield f"{table.get_name(base)}.{ending}", parameter, turned, _turned_back(heads)
        elif tensor.shape[0] == 1 and tensor.dim() == 2:
            yield f"{table.get_name(base)}.{ending}", parameter, tensor[0], _with_one
        else:
            yield f"{table.get_name(base)}.{ending}", parameter, tensor, _same


def _experts(model_type: str, name: str, parameter: Tensor) -> Any:
    layer, bias = name.split(".")[2], name.endswith("_bias")
    ending, turn = ("bias" if bias else "weight"), model_type == "gpt_oss" and not bias
    whole = parameter.detach().transpose(1, 2) if turn else parameter.detach()
    if "down_proj" in name:
        back = (lambda t: t.transpose(1, 2)) if turn else _same
        yield f"blk.{layer}.ffn_down_exps.{ending}", parameter, whole.contiguous(), back
        return
    for number, piece in enumerate(("gate", "up")):
        half = slice(number, None, 2) if model_type == "gpt_oss" else _half(number, whole.shape[1])
        rows = parameter[..., half] if turn or bias else parameter[:, half]
        back = (lambda t: t.transpose(1, 2)) if turn else _same
        yield f"blk.{layer}.ffn_{piece}_exps.{ending}", rows, whole[:, half].contiguous(), back


def _half(number: int, size: int) -> slice:
    return slice(number * size // 2, (number + 1) * size // 2)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _with_one(tensor: Tensor) -> Tensor:
    return tensor[None]


def _turned_back(heads: int) -> Callable[[Tensor], Tensor]:
    return lambda t: t.reshape(heads, -1, 2, t.shape[1]).transpose(1, 2).reshape(t.shape)


def write_metadata(writer: gguf.GGUFWriter, model: PreTrainedModel, more: dict[str, int], layers: int) -> None:
    """The keys that llama.cpp's converter writes for the model's type, a small tokenizer, and `more` numbers."""
    config, kind = model.config, KINDS[model.config.model_type]
    sizes = config.to_dict()
    head = sizes.get("head_dim") or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_expert_used_count(config.num_experts_per_tok)
    experts = next(sizes[k] for k in ("num_experts", "num_local_experts", "n_routed_experts") if sizes.get(k))
    writer.add_expert_count(experts)
    if kind in ("qwen2moe", "qwen3moe", "glm4moe", "dots1"):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if kind == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    if kind == "gpt-oss":
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
        writer.add_rope_scaling_orig_ctx_len(config.rope_parameters["original_max_position_embeddings"])
    if kind == "minimax-m2":
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_rope_dimension_count(
            config.rope_parameters.get("rotary_dim") or sizes.get("rotary_dim") or head
        )
    if kind in ("glm4moe", "dots1"):
        writer.add_expert_shared_count(config.n_shared_experts)
        writer.add_leading_dense_block_count(config.first_k_dense_replace)
        writer.add_expert_weights_scale(config.routed_scaling_factor)
        writer.add_expert_weights_norm(config.norm_topk_prob)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if kind == "glm4moe":
        writer.add_rope_dimension_count(int(head * config.rope_parameters["partial_rotary_factor"]))
    for key, value in more.items():
        writer.add_uint32(f"{kind}.{key}", value)
    write_tokenizer(writer)


def write_tokenizer(writer: gguf.GGUFWriter) -> None:
    """A token for each byte, and three that control."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = ["<|end|>", "<s>", "<pad>", "he", *bytes_to_unicode().values()][:128]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
