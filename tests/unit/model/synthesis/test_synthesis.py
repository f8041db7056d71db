from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Mxfp4Config

from faasmoe.errors import OptionError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.model.synthesis import synthesis
from faasmoe.model.synthesis.geometries import GEOMETRIES
from faasmoe.model.synthesis.synthesis import Synthesis


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    sizes = {
        **GEOMETRIES["qwen1.5-moe-a2.7b"],
        "hidden_size": 64,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
        "num_experts": 6,
        "vocab_size": 300,
    }
    monkeypatch.setitem(GEOMETRIES, "small", sizes)
    monkeypatch.setattr(synthesis, "SHARD_BYTES", 100_000)
    return "small"


def test_transformers_loads_what_was_made(small: str, tmp_path: Path) -> None:
    made = Synthesis(small, layers=2)
    written = 0

    def advance(count: int) -> None:
        nonlocal written
        written += count

    made.write(tmp_path, advance)
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert written == made.nbytes == 2 * sum(p.numel() for p in model.parameters())
    assert model.dtype == torch.bfloat16
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    text = "words, and ünï"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_seed_gives_the_same_weights(small: str, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        Synthesis(small, layers=1, seed=seed).write(tmp_path / name)
    first, again, other = (
        b"".join(f.read_bytes() for f in sorted((tmp_path / n).glob("*.safetensors"))) for n in "abc"
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry_can_be_served(name: str) -> None:
    layers = GEOMETRIES[name].get("first_k_dense_replace", 0) + 1
    assert Synthesis(name, layers=layers, vocab=512).nbytes > 1_000_000


def test_published_sizes() -> None:
    assert Synthesis("qwen1.5-moe-a2.7b").nbytes / 2 == pytest.approx(14.3e9, rel=0.01)
    assert Synthesis("olmoe-1b-7b").nbytes / 2 == pytest.approx(6.9e9, rel=0.01)
    assert Synthesis("mixtral-8x7b").nbytes / 2 == pytest.approx(46.7e9, rel=0.01)
    assert Synthesis("qwen3-30b-a3b").nbytes / 2 == pytest.approx(30.5e9, rel=0.01)


def test_wrong_options_say_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"there are .*mixtral-8x7b"):
        Synthesis("gpt-5")
    with pytest.raises(OptionError, match="--layers 99: must be 1 to 24"):
        Synthesis("qwen1.5-moe-a2.7b", layers=99)
    (tmp_path / "mine").write_text(json.dumps({}))
    with pytest.raises(OptionError, match="not an empty folder"):
        Synthesis("olmoe-1b-7b", layers=1, vocab=512).write(tmp_path)


def test_the_disk_is_looked_at_first(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Synthesis(small, layers=1)
    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk._replace(free=made.nbytes - 1))
    with pytest.raises(
        OptionError, match=r"--out .*made/here: needs 0.00 GB, and .* has 0.00 GB left on its disk"
    ):
        made.write(tmp_path / "made" / "here")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), OSError(28, "No space left on device")])
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_left_of_what_was_not_completed(
    small: str, tmp_path: Path, error: BaseException, there: bool
) -> None:
    folder = tmp_path / "a" / "b"
    if there:
        folder.mkdir(parents=True)

    def fail(_: int) -> None:
        assert any(folder.glob("*.safetensors"))
        raise error

    with pytest.raises(OptionError if isinstance(error, OSError) else type(error)):
        Synthesis(small, layers=1).write(folder, fail)
    assert [each for each in tmp_path.rglob("*") if not each.is_dir()] == []
    assert folder.exists() == there
    assert (tmp_path / "a").exists() == there


def test_a_folder_that_cannot_be_written_is_named(small: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match=r"--out .*file/below: cannot be written: .*Not a directory"):
        Synthesis(small, layers=1).write(tmp_path / "file" / "below")


def test_gpt_oss_is_made_as_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_size": 64, "intermediate_size": 96, "num_local_experts": 4, "vocab_size": 300, "head_dim": 16}
    monkeypatch.setitem(GEOMETRIES, "gpt-oss-20b", GEOMETRIES["gpt-oss-20b"] | small)
    made = Synthesis("gpt-oss-20b", layers=2, published=True)
    made.write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["model.layers.1.mlp.experts.gate_up_proj_blocks"].shape == (4, 192, 2, 16)
    assert sum(tensor.nbytes for tensor in tensors.values()) == made.nbytes
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=Mxfp4Config(dequantize=True))
    assert made.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert model.model.layers[1].mlp.experts.down_proj.detach().float().std() == pytest.approx(0.02, rel=0.5)
    assert make_plan(resolve(str(tmp_path))).blocks[0].artifact.weights[0].down.format == "mxfp4"


def test_deepseek_v3_is_made_as_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "hidden_size": 192, "intermediate_size": 96, "moe_intermediate_size": 64, "n_routed_experts": 8,
        "vocab_size": 300, "num_attention_heads": 4, "num_key_value_heads": 4, "n_group": 1, "topk_group": 1,
    }  # fmt: skip
    monkeypatch.setitem(GEOMETRIES, "deepseek-v3", GEOMETRIES["deepseek-v3"] | small)
    Synthesis("deepseek-v3", layers=4, published=True).write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.3.mlp.experts.0.gate_proj.weight"
    assert tensors[name].dtype == torch.float8_e4m3fn
    assert tensors[f"{name}_scale_inv"].shape == (1, 2)
    assert (tensors[name].float() * tensors[f"{name}_scale_inv"][0, 0]).std() == pytest.approx(0.02, rel=0.1)
    assert tensors["model.layers.3.mlp.gate.weight"].dtype == torch.bfloat16
    plan = make_plan(resolve(str(tmp_path)))
    assert plan.blocks[0].artifact.weights[0].down.format == "fp8"
    assert "model.layers.3.self_attn.kv_b_proj" in plan.linears
