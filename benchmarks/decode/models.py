"""The checkpoints that are served: random weights in the shapes of published models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from math import prod
from pathlib import Path

from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.model.synthesis.synthesis import _byte_tokenizer


def make(folder: Path, *options: str) -> Path:
    """Qwen1.5-MoE-A2.7B's shape, if it is not there yet."""
    if not folder.exists():
        command = [sys.executable, "-m", "faasmoe.cli.main", "models", "make", "qwen1.5-moe-a2.7b"]
        subprocess.run([*command, "--out", str(folder), *options], check=True)
    return folder


def make_tiny(folder: Path) -> Path:
    """24 layers of a tiny model, so that a step is nothing but overhead."""
    return _saved(folder, Qwen2MoeConfig(
        vocab_size=257, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=24,
        shared_expert_intermediate_size=32, num_attention_heads=2, num_key_value_heads=2, num_experts=8,
        num_experts_per_tok=2, eos_token_id=256,
    ))  # fmt: skip


def make_wide(folder: Path) -> Path:
    """Two layers with experts of gpt-oss-20b's shape (its `config.json`), in an architecture that GGUF files are
    written for."""
    if folder.exists():
        return folder
    return _saved(folder, Qwen2MoeConfig(
        vocab_size=201_088, hidden_size=2880, intermediate_size=2880, moe_intermediate_size=2880, num_hidden_layers=2,
        shared_expert_intermediate_size=256, num_attention_heads=45, num_key_value_heads=9, num_experts=32,
        num_experts_per_tok=4, eos_token_id=256, max_position_embeddings=8192,
    ))  # fmt: skip


def _saved(folder: Path, config: Qwen2MoeConfig) -> Path:
    Qwen2MoeForCausalLM(config).bfloat16().save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)
    return folder


def read_again(files: Iterable[Path]) -> None:
    """Have files in the page cache as reading them in order brings them there.

    What was read at random is in small folios, and mapped in small pages: one core of a Zen 4 reads it at 17 GB/s, and
    at 30 what was read in order (Linux 6.18, ext4).
    """
    for file in files:
        with file.open("rb", buffering=0) as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while stream.read(4 << 20):
                pass


def token_weights(folder: Path) -> tuple[int, int]:
    """How many weights one token is multiplied by: in all layers, and in the one that gives logits."""
    text = make_plan(resolve(str(folder))).architecture.text_config
    hidden, head = text.hidden_size, text.hidden_size // text.num_attention_heads
    attention = hidden * head * (2 * text.num_attention_heads + 2 * text.num_key_value_heads)
    experts = text.num_experts_per_tok * text.moe_intermediate_size + text.shared_expert_intermediate_size
    layer = attention + 3 * hidden * experts + hidden * (text.num_experts + 1)
    return text.num_hidden_layers * layer, prod((hidden, text.vocab_size))
