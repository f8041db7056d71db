from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.checkpoint.gguf import header
from faasmoe.model.checkpoint.gguf.header import GgufHeader, is_gguf, read_gguf_header
from faasmoe.model.checkpoint.gguf.types import locations


def write(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """A small file with each kind of value."""
    tensors = {
        "a": np.arange(96, dtype=np.float32).reshape(2, 3, 16),
        "b": np.arange(10, dtype=np.float16),
        "c": np.ones((4, 64), np.float32),
    }
    writer = gguf.GGUFWriter(file, "olmoe")
    writer.add_uint32("number", 7)
    writer.add_float32("real", 0.5)
    writer.add_bool("flag", True)
    writer.add_string("text", "naïve")
    writer.add_array("texts", ["x", "", "夜"])
    writer.add_array("numbers", [1, 2, 3])
    for name, tensor in tensors.items():
        if name == "c":
            writer.add_tensor(
                name,
                gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.Q8_0),
                raw_dtype=gguf.GGMLQuantizationType.Q8_0,
            )
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("sound") / "a.gguf"
    write(file)
    return file.read_bytes()


def read(file: Path, content: bytes) -> GgufHeader:
    file.write_bytes(content)
    found = read_gguf_header(file)
    locations(found)
    return found


def test_what_was_written_is_read(tmp_path: Path) -> None:
    tensors = write(tmp_path / "a.gguf")
    found = read_gguf_header(tmp_path / "a.gguf")
    values = dict(found.metadata)
    assert values.pop("numbers").tolist() == [1, 2, 3]
    assert values == {
        "general.architecture": "olmoe", "number": 7, "real": 0.5, "flag": True, "text": "naïve",
        "texts": ["x", "", "夜"],
    }  # fmt: skip
    places = locations(found)
    assert {name: place.shape for name, place in places.items()} == {n: t.shape for n, t in tensors.items()}
    assert [places[name].format for name in "abc"] == ["dense", "dense", "q8_0"]
    for name in "ab":
        assert isinstance(places[name], TensorLocation)
        assert np.array_equal(places[name].map(), tensors[name])
    assert is_gguf(tmp_path / "a.gguf")


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x80\x02PK")
    assert not is_gguf(tmp_path / "a")
    assert not is_gguf(tmp_path / "b")
    assert not is_gguf(tmp_path)
    with pytest.raises(CheckpointError, match=r"a is no GGUF file: it does not begin with GGUF"):
        read_gguf_header(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"cannot read .*b: No such file"):
        read_gguf_header(tmp_path / "b")


@pytest.mark.parametrize(("version", "said"), [(1, "of version 1:"), (0x03000000, "big-endian machines")])
def test_other_versions_are_refused(version: int, said: str, sound: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        read(tmp_path / "a", sound[:4] + struct.pack("<I", version) + sound[8:])


@given(data=st.data())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(sound: bytes, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4, len(content) - 9))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            content[at : at + 8] = struct.pack(
                "<Q", data.draw(st.sampled_from([0, 1, 255, 2**32, 2**63, 2**64 - 1]))
            )
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    with suppress(CheckpointError, UnsupportedModel):
        found = read(tmp_path / "a", bytes(content[:end]))
        assert all(place.parts[0].offset + place.nbytes <= end for place in locations(found).values())


def test_a_file_cut_short_anywhere_is_refused(sound: bytes, tmp_path: Path) -> None:
    for end in range(0, len(sound) - 16, 7):  # 16 bytes fill it up to the alignment
        with pytest.raises(CheckpointError, match=r"truncated|begin with GGUF"):
            read(tmp_path / "a", sound[:end])


def test_a_header_that_is_too_long_is_not_read(
    sound: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header, "LARGEST_HEADER", 200)
    with pytest.raises(CheckpointError, match=r"a header of more than 200 bytes"):
        read(tmp_path / "a", sound)


def test_tensors_on_each_other_are_refused(sound: bytes, tmp_path: Path) -> None:
    found = read(tmp_path / "a", sound)
    moved = [tensor if tensor.name != "b" else tensor.__class__("b", (10,), 1, found.tensors[0].offset + 32)
             for tensor in found.tensors]  # fmt: skip
    with pytest.raises(CheckpointError, match="tensors a and b overlap"):
        locations(GgufHeader(found.file, found.state, found.metadata, tuple(moved)))


def test_a_type_that_is_not_read_is_refused(sound: bytes, tmp_path: Path) -> None:
    found = read(tmp_path / "a", sound)
    a = found.tensors[0]
    for type, error, said in (
        (99, UnsupportedModel, "ggml's type 99"),
        (12, CheckpointError, "no multiple of 256"),
    ):
        other = GgufHeader(found.file, found.state, {}, (a.__class__(a.name, a.shape, type, a.offset),))
        with pytest.raises(error, match=said):
            locations(other)
