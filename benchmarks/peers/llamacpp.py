"""llama.cpp on the weights of a Qwen2-MoE checkpoint, which are written as GGUF first. Needs `faasmoe[peers]`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp as lib
import numpy as np
import torch
from safetensors import safe_open

from benchmarks.peers import Task, Took, answer

_BATCH = 512  # tokens in one call
_MOST_SEQUENCES, _CONTEXT = 8, 8192

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


class Checkpoint:
    """Tensors of a folder of safetensors files, by name."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        files = [safe_open(str(path), "pt") for path in sorted(folder.glob("*.safetensors"))]
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - no mapping

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._files[name].get_tensor(name)


def write(folder: Path, path: Path, kind: gguf.GGMLQuantizationType) -> None:
    """The checkpoint as a GGUF file without tokenizer."""
    checkpoint = Checkpoint(folder)
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
        raise SystemExit(f"only qwen2_moe can be written, not {config['model_type']}")
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


class Llama:
    """A context for up to `_MOST_SEQUENCES` sequences."""

    def __init__(self, path: Path, threads: int) -> None:
        lib.llama_backend_init()
        self._silence = lib.llama_log_callback(lambda *_: None)  # must outlive the library's use of it
        lib.llama_log_set(self._silence, None)
        model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        self._vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = _CONTEXT, _BATCH, _BATCH
        params.n_seq_max, params.n_threads, params.n_threads_batch = _MOST_SEQUENCES, threads, threads
        self._context = lib.llama_init_from_model(model, params)
        self._batch = lib.llama_batch_init(_BATCH, 0, 1)

    def run(self, task: Task) -> Took:
        """Its tokens are random as well: which ones they are makes no difference to the time."""
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        random = np.random.default_rng(task.seed)
        start = time.perf_counter()
        for sequence in range(task.sequences):
            tokens = random.integers(self._vocabulary, size=task.prompt).tolist()
            last = task.prompt - 1
            for at in range(0, task.prompt, _BATCH):
                chunk = range(at, min(at + _BATCH, task.prompt))
                self._step([(tokens[i], i, sequence, i == last) for i in chunk])
        filled = time.perf_counter()
        for position in range(task.prompt, task.prompt + task.tokens):
            tokens = random.integers(self._vocabulary, size=task.sequences).tolist()
            self._step([(token, position, sequence, True) for sequence, token in enumerate(tokens)])
        return Took(filled - start, time.perf_counter() - filled)

    def _step(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if code := lib.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {code}")
        lib.llama_synchronize(self._context)


def main() -> None:
    folder, path, kind, threads = sys.argv[1:]
    if not Path(path).exists():
        unfinished = Path(f"{path}.part")
        write(Path(folder), unfinished, gguf.GGMLQuantizationType[kind])
        unfinished.rename(path)
    answer(f"llama-cpp-python {lib.__version__}, {kind}", Llama(Path(path), int(threads)).run)


if __name__ == "__main__":
    main()
