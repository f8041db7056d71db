"""Checkpoints that are damaged, or made to do harm: each is refused in one line that names what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from faasmoe.errors import CheckpointError, UnsupportedModel, UserError
from faasmoe.model.architecture import inspect_architecture
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import make_plan
from tests.tiny import save_tiny

SHARD, INDEX = "model.safetensors", "model.safetensors.index.json"
ROUTER = "model.layers.1.mlp.gate.weight"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    save_tiny("qwen2_moe", folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def load(folder: Path) -> DenseModel:
    """As far as a server goes before it starts anything."""
    plan = make_plan(resolve(str(folder)))
    return DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)


def pipe(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


def device(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/dev/zero")

    return damage


def subfolder(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return damage


def written(name: str, content: object) -> Damage:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text)


def sharded(weight_map: object) -> Damage:
    def damage(folder: Path) -> None:
        (folder / SHARD).unlink()
        written(INDEX, {"weight_map": weight_map})(folder)

    return damage


def config(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def tensors(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / SHARD)
        change(found)
        save_file(found, folder / SHARD, {"format": "pt"})

    return damage


def header(text: str) -> Damage:
    data = text.encode()
    return lambda folder: (folder / SHARD).write_bytes(struct.pack("<Q", len(data)) + data)


def length(number: int) -> Damage:
    return lambda folder: (folder / SHARD).write_bytes(struct.pack("<Q", number) + b"{}      ")


def cast(name: str, dtype: torch.dtype) -> Damage:
    return tensors(lambda found: found.update({name: found[name].to(dtype)}))


def poison(name: str, value: float) -> Damage:
    def change(found: dict[str, Any]) -> None:
        found[name].view(-1)[-1] = value

    return tensors(change)


DEEP = 200_000
FILES: list[tuple[Damage, str]] = [
    (pipe(SHARD), "named pipe"),
    (pipe("config.json"), "config.json that is not a file"),
    (pipe(INDEX), "named pipe"),
    (pipe("tokenizer.json"), r"tokenizer\.json: it is a named pipe"),
    (pipe("generation_config.json"), "named pipe"),
    (pipe("chat_template.jinja"), "named pipe"),
    (device(SHARD), "device"),
    (device("config.json"), "config.json that is not a file"),
    (device("tokenizer_config.json"), "device"),
    (subfolder(SHARD), "it is a folder"),
    (subfolder("config.json"), "config.json that is not a file"),
    (subfolder(INDEX), "it is a folder"),
    (subfolder("generation_config.json"), "it is a folder"),
    (written(SHARD, ""), "has 0 bytes"),
    (written(INDEX, []), "a JSON object, not a list"),
    (written(INDEX, {"weight_map": 5}), "no weight_map"),
    (written(INDEX, {"weight_map": {"a": "../model.safetensors"}}), "not a plain file name"),
    (written(INDEX, {"weight_map": {"a": ".."}}), "not a plain file name"),
    (written(INDEX, {"weight_map": {"a": ""}}), "not a plain file name"),
    (written(INDEX, {"weight_map": {"a": "/etc/passwd"}}), "not a plain file name"),
    (written(INDEX, {"weight_map": {"a": "a\0b"}}), "not a plain file name"),
    (written(INDEX, {"weight_map": {"a": "a\nb"}}), "not a plain file name"),
    (written(INDEX, {"weight_map": {"a": "\ud800"}}), "not a plain file name"),
    (written(INDEX, {"weight_map": {"a": 7}}), "not a plain file name"),
    (sharded({"a": "x" * 5000}), "is missing|cannot read"),
    (written(INDEX, '{"weight_map": {"a": "x", "a": "y"}}'), "the key a is there twice"),
    (written(INDEX, "[" * DEEP), "nested too deeply"),
]
HEADERS: list[tuple[Damage, str]] = [
    (length(2**63 - 9), "truncated or no safetensors file"),
    (length(2**64 - 1), "truncated or no safetensors file"),
    (length(2**62), "truncated or no safetensors file"),
    (header("[" * DEEP), "does not begin with {"),
    (header('{"a":' * DEEP), "nested too deeply"),
    (header("[]"), "does not begin with {"),
    (header('{"a": {"dtype": "F32", "shape": [2'), "malformed"),
    (header('{"a": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}'), "no list of sizes"),
    (header('{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}'), "no list of sizes"),
    (header('{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}'), "no list of sizes"),
    (header('{"a": {"dtype": "F32", "shape": [9e99], "data_offsets": [0, 4]}}'), "no list of sizes"),
    (
        header('{"a": {"dtype": "F32", "shape": [0, 1' + "0" * 40 + '], "data_offsets": [0, 0]}}'),
        "no list of sizes",
    ),
    (header('{"a": {"dtype": "F32", "shape": [], "data_offsets": [-4, 0]}}'), "not two numbers"),
    (header('{"a": {"dtype": "F32", "shape": [], "data_offsets": [0]}}'), "not two numbers"),
    (header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}'), "its offsets give -4"),
    (header('{"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}'), "no text"),
    (header('{"a": {"dtype": "X\\n", "shape": [1], "data_offsets": [0, 4]}}'), r"unknown dtype 'X\\n'"),
    (header('{"a\\nb": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'), r"named 'a\\nb'"),
    (header('{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'), r"named '\\ud800'"),
    (
        header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "shape": [1]}}'),
        "key shape is there twice",
    ),
    (header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'), "truncated"),
]
WEIGHTS: list[tuple[Damage, str]] = [
    (cast(ROUTER, torch.int64), rf"{SHARD}: tensor {ROUTER} has the dtype I64"),
    (
        cast("model.layers.0.mlp.experts.3.up_proj.weight", torch.int8),
        r"experts\.3\.up_proj\.weight has the dtype I8",
    ),
    (cast("model.norm.weight", torch.float8_e4m3fn), r"model\.norm\.weight has the dtype F8_E4M3"),
    (
        tensors(lambda found: found.update({"lm_head.weight": found["lm_head.weight"][1:].clone()})),
        r"lm_head\.weight has the shape \[127, 64\], but with this config it must be \[128, 64\]",
    ),
    (
        tensors(lambda found: found.update({"model.norm.weight": found["model.norm.weight"][None].clone()})),
        r"model\.norm\.weight has the shape \[1, 64\]",
    ),
    (config(hidden_size=32), r"has the shape .* but with this config it must be"),
    (poison("model.norm.weight", float("nan")), r"model\.norm\.weight holds a non-finite weight"),
    (poison(ROUTER, float("inf")), f"{ROUTER} holds a non-finite weight"),
    (poison("model.layers.2.self_attn.q_proj.bias", float("-inf")), r"q_proj\.bias holds a non-finite weight"),
    (poison("lm_head.weight", float("nan")), r"lm_head\.weight holds a non-finite weight"),
    (tensors(lambda found: found.pop("model.norm.weight")), r"the first is model\.norm\.weight"),
]
CONFIGS: list[tuple[Damage, str]] = [
    (written("config.json", []), "a JSON object, not a list"),
    (written("config.json", ""), "is not JSON"),
    (written("config.json", "[" * DEEP), "nested too deeply"),
    (written("config.json", '{"a":' * DEEP), "nested too deeply"),
    (written("config.json", " " * (5 << 20)), "at most 4194304 are read"),
    (written("config.json", {}), "does not know the architecture .* None"),
    (config(model_type=["qwen2_moe"]), "does not know the architecture"),
    (config(hidden_size="many"), "config"),
    (config(hidden_size=-64), "qwen2_moe|config"),
    (config(num_hidden_layers=10**9), "num_hidden_layers 1e[+]09 is too large: at most 4096"),
    (
        config(num_hidden_layers=4096, layer_types=["full_attention"] * 4096),
        r"announces 4096 layers, its files hold \d+ tensors",
    ),
    (config(num_experts=10**12), "num_experts 1e[+]12 is too large"),
    (config(head_dim=10**15), "head_dim 1e[+]15 is too large"),
    (config(num_attention_heads=0), "qwen2_moe|config"),
    (config(num_experts_per_tok=9), "num_experts_per_tok is 9 in its config: must be 1 to 8"),
    (config(num_experts_per_tok=0), "num_experts_per_tok is 0 in its config"),
    (config(quantization_config="fp8"), "config.json cannot be read"),
    (config(quantization_config=[1]), "config.json cannot be read"),
    (config(quantization_config={"quant_method": ["x"]}), r"quantized with \['x'\]"),
    (config(text_config={"quantization_config": {"quant_method": "bnb"}}), "qwen2_moe: .* quantized with bnb"),
    (config(a={"b": {"quantization_config": "fp8"}}), "qwen2_moe: .* quantized with an unknown method"),
    (config(compression_config={"quant_method": "compressed-tensors"}), "quantized with compressed-tensors"),
    (config(text_config=[1, 2]), "qwen2_moe: transformers cannot build it"),
    (config(rope_parameters=7), "config|qwen2_moe"),
    (written("generation_config.json", []), "a JSON object, not a list"),
    (written("generation_config.json", ""), r"generation_config\.json is not JSON"),
    (written("generation_config.json", {"eos_token_id": "x"}), "must be a token id"),
    (written("generation_config.json", {"eos_token_id": [1, {}]}), "must be a token id"),
]


@pytest.mark.parametrize(("damage", "said"), FILES + HEADERS + WEIGHTS + CONFIGS)
def test_it_is_refused_in_one_line(folder: Path, damage: Damage, said: str) -> None:
    damage(folder)
    started = time.monotonic()
    with pytest.raises(UserError, match=said) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 30


def test_the_sound_one_is_loaded(folder: Path) -> None:
    assert load(folder).vocabulary > 0
    written("generation_config.json", {"eos_token_id": [1, 2], "temperature": 0.5})(folder)
    assert load(folder).vocabulary > 0


def test_an_integer_that_no_weight_is_made_of_may_be_there(folder: Path) -> None:
    tensors(lambda found: found.update({"position_ids": torch.arange(5)}))(folder)
    assert load(folder).vocabulary > 0


def test_a_large_weight_that_is_not_finite_is_found_by_its_effect(folder: Path) -> None:
    save_tiny("qwen2_moe", folder, vocab_size=5000)  # more numbers than are looked at one by one
    poison("lm_head.weight", float("nan"))(folder)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight holds a non-finite weight"):
        load(folder)


def test_a_model_with_a_quantized_part_is_quantized() -> None:
    whole = AutoConfig.for_model("llama4", text_config={"quantization_config": {"quant_method": "awq"}})
    with pytest.raises(UnsupportedModel, match="llama4: the checkpoint is quantized with awq"):
        inspect_architecture(whole)


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "_experts_implementation"])
def test_a_config_cannot_name_code_on_the_hub(folder: Path, key: str) -> None:
    config(**{key: "somebody/kernel"})(folder)
    assert load(folder).vocabulary > 0
