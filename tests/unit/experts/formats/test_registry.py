from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from faasmoe.errors import CheckpointError
from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.expert import ExpertForm, Gate
from faasmoe.experts.formats import REGISTERED, Registered, conversions, registry
from faasmoe.experts.formats.base import WeightFormat
from faasmoe.experts.handler import load
from faasmoe.experts.mapping import TensorLocation
from faasmoe.experts.payload import Request, decode_reply, encode_request
from faasmoe.model.tensors import as_array
from faasmoe.model.weights.quantised_file import QuantisedFile, SourceMatrix
from tests.unit.experts.formats import made_up


def test_every_format_has_the_name_of_its_line() -> None:
    assert [format.name for format in registry.formats()] == list(REGISTERED)
    assert registry.format_of(np.ones((2, 2))) is registry.format_of(torch.ones(2, 2)) is registry.DENSE


def test_the_document_names_the_whole_protocol() -> None:
    text = (Path(__file__).parents[4] / "docs" / "formats.md").read_text()
    named = {name for row in re.findall(r"^\| [^|]+ \| (`[^|]+`) \|", text, re.MULTILINE)
             for name in re.findall(r"`(\w+)`", row)}  # fmt: skip
    assert named == {name for name in (*vars(WeightFormat), *WeightFormat.__annotations__) if name[0] != "_"}


def test_every_conversion_that_is_offered_can_be_done() -> None:
    for name in conversions():
        assert registry.by_name(name).converted("a", (4, 32))


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(
        CheckpointError, match="no weight format 'exl2'; there are awq, dense, fp8, gguf_mxfp4, gptq, "
    ):
        registry.by_name("exl2")


def place(name: str, dtype: str, *shape: int) -> TensorLocation:
    return TensorLocation(Path(name), 0, dtype, shape)


TENSORS = {"a": place("a", "F16", 4, 16), "a.rows": place("a.rows", "F32", 4), "b": place("b", "F16", 4, 16)}


def test_tensors_that_a_format_recognises_become_one_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.found(TENSORS, {}) == ({}, TENSORS)
    monkeypatch.setitem(REGISTERED, made_up.FORMAT.name, Registered(made_up.__name__))
    for settings in ({}, {"quant_method": made_up.FORMAT.name}):
        weights, left = registry.found(TENSORS, settings)
        assert {name: weight.parts for name, weight in weights.items()} == {"a": (TENSORS["a"], TENSORS["a.rows"])}
        assert left == {"b": TENSORS["b"]}


def test_what_a_config_declares_is_asked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTERED, made_up.FORMAT.name, Registered(made_up.__name__))
    monkeypatch.setattr(type(registry.by_name("int8")), "declared", lambda *_: True)
    assert registry.found(TENSORS, {"quant_method": "int8"}) == ({}, TENSORS)


def test_a_tensor_belongs_to_one_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTERED, made_up.FORMAT.name, Registered(made_up.__name__))
    monkeypatch.setattr(type(registry.by_name("int8")), "found", lambda *_: {"c": ("a", "a.rows")})
    with pytest.raises(CheckpointError, match="two weight formats recognise the tensors a, "):
        registry.found(TENSORS, {})
    monkeypatch.setattr(type(registry.by_name("int8")), "found", lambda *_: {"b": ("c", "c.scale")})
    both = TENSORS | {"c": place("c", "I8", 4, 16), "c.scale": place("c.scale", "F32", 4)}
    with pytest.raises(CheckpointError, match="b holds the weight b both plain and quantized"):
        registry.found(both, {})


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("rows", [1, 5])
def test_one_module_is_enough_to_serve_experts_in_a_new_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, rows: int
) -> None:
    """From a plain weight through its quantised file, the artifact and the handler to the sums."""
    monkeypatch.setitem(REGISTERED, made_up.FORMAT.name, Registered(made_up.__name__))
    torch.manual_seed(0)
    hidden, inner = 32, 16
    weights = [torch.randn(shape) for shape in ((inner, hidden), (inner, hidden), (hidden, inner))]
    (tmp_path / "plain").write_bytes(b"".join(weight.numpy().tobytes() for weight in weights))
    places = [
        TensorLocation(tmp_path / "plain", 4 * inner * hidden * number, "F32", tuple(weight.shape))
        for number, weight in enumerate(weights)
    ]
    matrices = [SourceMatrix(f"{number}", place) for number, place in enumerate(places)]
    copy = QuantisedFile(tmp_path / "copy.safetensors", made_up.FORMAT, matrices)
    gate, up, down = copy.locations()
    copy.write(lambda _: None)

    artifact = Artifact(2, (7,), dtype, ExpertForm(Gate("glu", "silu")), (ExpertLocations((gate, up), down),))
    assert artifact.memory == artifact.nbytes == 3 * 2 * inner * hidden + 4 * (2 * inner + hidden)
    (tmp_path / "artifact.json").write_text(artifact.to_text())
    (expert,) = Artifact.read(tmp_path / "artifact.json").weights
    assert {matrix.format for matrix in expert.matrices} == {"half_rows"}

    x = torch.randn(rows, hidden).to(torch.bfloat16 if dtype == "BF16" else torch.float32)
    index = np.arange(rows, dtype=np.int32)
    asked = Request(
        layer=2, rows=as_array(x), row=index, expert=np.zeros_like(index), weight=np.full(rows, 0.5, np.float32)
    )
    reply = load(str(tmp_path / "artifact.json"))(bytearray(b"".join(encode_request(asked))), None, 0, bytearray)
    sums = decode_reply(bytearray(reply)).sums
    assert sums is not None
    wanted = 0.5 * (torch.nn.functional.silu(x.float() @ weights[0].T) * (x.float() @ weights[1].T)) @ weights[2].T
    error = (torch.from_numpy(sums) - wanted).abs().max() / wanted.abs().max()
    assert error < (0.02 if dtype == "BF16" else 2e-3)
