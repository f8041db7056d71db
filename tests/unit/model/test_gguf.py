"""GGUF files of tiny models, from the file to the logits, next to transformers with the numbers that the files mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from faasmoe.errors import CheckpointError, OptionError, UnsupportedModel
from faasmoe.model.checkpoint.gguf import folder
from faasmoe.model.checkpoint.gguf.folder_process import describe
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import ModelPlan, make_plan
from tests.gguf_files import KINDS, Choose, save_model, write_gguf
from tests.unit.model.serving import TOKENS, computed


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Metadata is read here instead of in a process of its own."""

    def run(module: str, arguments: Sequence[str], what: str) -> None:
        describe(*map(Path, arguments))

    monkeypatch.setattr(folder, "run_apart", run)
    monkeypatch.setenv("FAASMOE_CACHE", str(tmp_path / "cache"))


def plain(kind: Type) -> Choose:
    """All matrices in one type, but routers, which llama.cpp keeps in float32."""
    return lambda name: Type.F32 if "ffn_gate_inp" in name else kind


def mixture(name: str) -> Type:
    """As Q4_K_M: down, values and the head have more bits. Rows that are no multiple of 256 have another type."""
    if "ffn_gate_inp" in name:
        return Type.F32
    if "attn_output" in name:
        return Type.Q5_0
    return Type.Q6_K if "down" in name or name.startswith("output") or "attn_v" in name else Type.Q4_K


def mxfp4(name: str) -> Type:
    """As gpt-oss is published: experts in MXFP4, the rest in bfloat16 and eight bits."""
    if "_exps" in name:
        return Type.MXFP4
    return Type.F32 if "ffn_gate_inp" in name else Type.BF16 if "attn" in name else Type.Q8_0


def planned(file: Path, dtype: str = "float32", **options: Any) -> ModelPlan:
    return make_plan(resolve(str(file)), 3, dtype, **options)


def write(tmp_path: Path, model_type: str, choose: Choose, **more: Any) -> tuple[Path, torch.Tensor]:
    """A file, and the logits of transformers."""
    model = save_model(model_type, tmp_path / "saved")
    write_gguf(model, tmp_path / "m.gguf", choose, more)
    with torch.inference_mode():
        return tmp_path / "m.gguf", model(torch.tensor([TOKENS])).logits[0]


def divergence(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """Nats a token."""
    wanted, got = wanted.log_softmax(-1), got.log_softmax(-1)
    return float((wanted.exp() * (wanted - got)).sum(-1).mean())


CASES: dict[str, Choose] = {"F32": plain(Type.F32), "F16": plain(Type.F16), "BF16": plain(Type.BF16),
                            "Q8_0": plain(Type.Q8_0), "mixture": mixture, "MXFP4": mxfp4}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "case"),
    [*((model_type, "mixture") for model_type in KINDS), *(("qwen3_moe", case) for case in CASES if case != "mixture"),
     ("gpt_oss", "MXFP4"), ("gpt_oss", "BF16"), ("mixtral", "BF16")],
)  # fmt: skip
def test_logits_are_those_of_transformers(model_type: str, case: str, tmp_path: Path) -> None:
    file, wanted = write(tmp_path, model_type, CASES[case])
    plan = planned(file)
    assert plan.source.name == "m"
    _, got = computed(plan, tmp_path / "artifacts")
    assert (got - wanted).abs().max() < 1e-4
    assert divergence(wanted, got) < 1e-3


def test_functions_map_experts_from_the_file_in_their_formats(tmp_path: Path) -> None:
    file, _ = write(tmp_path, "qwen3_moe", mixture)
    plan = planned(file, "auto")
    assert plan.dtype == torch.bfloat16
    assert plan.mapped
    expert = plan.blocks[1].artifact.weights[0]
    assert [matrix.format for matrix in expert.matrices] == ["q4_k", "q4_k", "q6_k"]
    assert {part.file for part in expert} == {file}
    assert file in plan.files().states
    assert plan.linears["model.layers.0.self_attn.v_proj"].format == "q6_k"
    assert "model.layers.0.self_attn.o_proj" not in plan.linears  # Q5_0, which becomes plain when it is loaded


def test_compiled_kernels_run_a_mixture_in_bfloat16(tmp_path: Path) -> None:
    file, wanted = write(tmp_path, "dots1", mixture)
    _, got = computed(planned(file, "auto"), tmp_path / "artifacts")
    assert divergence(wanted, got) < 2e-3  # of rows in bfloat16


def test_a_split_model_is_the_whole_one(tmp_path: Path) -> None:
    file, wanted = write(tmp_path, "olmoe", plain(Type.F16))
    reader, parts = gguf.GGUFReader(file), [tmp_path / f"x-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, part in enumerate(parts):
        writer = gguf.GGUFWriter(part, "olmoe" if number == 0 else "")
        for field in reader.fields.values() if number == 0 else ():
            if not field.name.startswith(("GGUF.", "general.architecture")):
                kind, *inner = field.types
                writer.add_key_value(field.name, field.contents(), kind, sub_type=inner[-1] if inner else None)
        for tensor in reader.tensors[number::2]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    plan = planned(parts[0])
    assert plan.source.name == "x"
    _, got = computed(plan, tmp_path / "artifacts")
    assert (got - wanted).abs().max() < 1e-4


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    model = save_model("glm4_moe", tmp_path / "saved")
    write_gguf(model, tmp_path / "m.gguf", plain(Type.F32), {"nextn_predict_layers": 1}, beyond=True)
    with torch.inference_mode():
        wanted = model(torch.tensor([TOKENS])).logits[0]
    _, got = computed(planned(tmp_path / "m.gguf"), tmp_path / "artifacts")
    assert (got - wanted).abs().max() < 1e-4


def test_a_tensor_that_the_model_has_no_place_for_is_refused(tmp_path: Path) -> None:
    model = save_model("olmoe", tmp_path / "saved")
    extra = {"rope_freqs.weight": np.ones(8, np.float32)}
    write_gguf(model, tmp_path / "m.gguf", plain(Type.F32), extra=extra)
    with pytest.raises(UnsupportedModel, match=r"m\.gguf: tensor rope_freqs\.weight has no place in olmoe"):
        planned(tmp_path / "m.gguf")


def test_experts_in_a_type_without_kernel_are_refused(tmp_path: Path) -> None:
    file, _ = write(tmp_path, "olmoe", lambda name: Type.Q5_0 if "up_exps" in name else Type.F16)
    with pytest.raises(
        UnsupportedModel, match=r"ffn_up_exps\.weight is in Q5_0, which is not served for experts; F32,"
    ):
        planned(file)


def test_a_missing_tensor_is_told_by_the_model_s_name(tmp_path: Path) -> None:
    model = save_model("olmoe", tmp_path / "saved")
    for name, said in (("blk.1.ffn_up_exps.weight", "gate_up_proj"), ("blk.0.attn_k.weight", "k_proj.weight")):
        write_gguf(model, tmp_path / "m.gguf", plain(Type.F32), without=name)
        with pytest.raises(CheckpointError, match=rf"m\.gguf|layers\.\d.*{said}"):
            planned(tmp_path / "m.gguf")


def test_it_is_not_converted_to_another_format(tmp_path: Path) -> None:
    file, _ = write(tmp_path, "olmoe", plain(Type.BF16))
    with pytest.raises(OptionError, match=r"--quantize int8: .*m\.gguf is a GGUF file, .* leave out the option"):
        planned(file, "auto", quantize="int8")


def test_more_layers_than_tensors_are_refused_before_a_model_is_built(tmp_path: Path) -> None:
    model = save_model("olmoe", tmp_path / "saved")
    model.config.num_hidden_layers = 4000
    refuse: Callable[[str], Type] = plain(Type.F32)
    write_gguf(model, tmp_path / "m.gguf", refuse)
    with pytest.raises(CheckpointError, match=r"announces 4000 layers, its files hold \d+ tensors"):
        planned(tmp_path / "m.gguf")
