"""Headers of safetensors files as anybody may write them: located, or refused with `CheckpointError`."""

from __future__ import annotations

import json
import os
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.errors import CheckpointError
from faasmoe.experts.file_state import FileState
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.checkpoint.header import LARGEST_HEADER, parse_header, quoted, read_header

CORPUS = sorted((Path(__file__).parents[3] / "corpus" / "safetensors").iterdir())
FILE = Path("fuzzed.safetensors")
HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "c": {"dtype": "F32", "shape": [0, 5], "data_offsets": [32, 32]},
}


def whole(header: str | bytes, data: bytes = bytes(32), length: int | None = None) -> bytes:
    text = header.encode(errors="surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


SOUND = whole(json.dumps(HEADER))


def parsed(data: bytes) -> dict[str, TensorLocation] | None:
    """None if it is refused, which is told in a line that names the file."""
    try:
        return parse_header(FILE, data, FileState(1, 2, len(data), 3))
    except CheckpointError as error:
        refusal = str(error)
    assert FILE.name in refusal
    assert "\n" not in refusal
    return None


def assert_located(tensors: dict[str, TensorLocation], data: bytes) -> None:
    """All tensors lie in the file, and the format's own library finds the same."""
    assert sum(location.nbytes for location in tensors.values()) <= len(data)
    assert all(0 <= location.offset <= len(data) - location.nbytes for location in tensors.values())
    theirs = dict(safetensors.deserialize(data))
    assert {name: list(location.shape) for name, location in tensors.items()} == {
        name: list(found["shape"]) for name, found in theirs.items()
    }


def test_the_sound_one() -> None:
    tensors = parsed(SOUND)
    assert tensors is not None
    assert_located(tensors, SOUND)
    start = len(SOUND) - 32
    assert {name: location.offset - start for name, location in tensors.items()} == {"a": 0, "b": 24, "c": 32}
    assert tensors["a"].state == FileState(1, 2, len(SOUND), 3)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 4, 24, 32, 2**31, 2**53, 2**62, 2**63, 2**64])
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["F32", "BF16", "I64", "U16", "F4", "a", "__metadata__"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed_headers(draw: st.DrawFn) -> bytes:
    """One value of a sound header, or several, is another."""
    header = json.loads(json.dumps(HEADER))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = header
        key: Any = draw(st.sampled_from(sorted(at)))
        while isinstance(at[key], (dict, list)) and at[key] and draw(st.booleans()):
            at = at[key]
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        at[key] = draw(json_values)
    return whole(json.dumps(header), bytes(draw(st.sampled_from([0, 8, 32, 64]))))


@st.composite
def changed_bytes(draw: st.DrawFn) -> bytes:
    """Some bytes of a sound file are others, or there are more or fewer."""
    data = bytearray(SOUND)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        more = draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"{", b"}", b"[", b",", b":", b"-", b"9", b"\\u"])
        )
        data[at : at + draw(st.integers(0, 3))] = more
    if draw(st.booleans()):  # still as long as it says
        data[:8] = struct.pack("<Q", max(0, len(data) - 40))
    return bytes(data)


@given(changed_headers() | changed_bytes() | st.binary(max_size=64))
@settings(max_examples=400)
def test_a_changed_file_is_refused_or_its_tensors_are_those_that_safetensors_finds(data: bytes) -> None:
    tensors = parsed(data)
    if tensors is not None:
        assert_located(tensors, data)


@given(st.integers(0, 2**64 - 1) | st.sampled_from([2**k + d for k in (31, 32, 62, 63) for d in (-9, -8, -1, 0)]))
def test_the_announced_length_is_not_believed(length: int) -> None:
    true = len(json.dumps(HEADER))
    assert (parsed(whole(json.dumps(HEADER), length=length)) is not None) == (length == true)


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_what_was_found_once_stays_found(file: Path) -> None:
    """Files that something came of once which is no refusal. Those named `good-` are sound."""
    data = file.read_bytes()
    tensors = parsed(data)
    assert (tensors is not None) == file.name.startswith("good-")
    if tensors is not None:
        assert_located(tensors, data)
    else:
        with pytest.raises(CheckpointError, match=file.name):
            read_header(file)


def test_a_huge_header_is_neither_read_nor_reserved_for(tmp_path: Path) -> None:
    file = tmp_path / "huge.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 39) + b"{")
    os.truncate(file, 1 << 40)  # sparse
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=f"at most {LARGEST_HEADER} are read"):
            read_header(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("filling", ["[],", '{"":0},', "0,", '"",'])
def test_time_and_memory_are_in_proportion_to_the_header(filling: str) -> None:
    text = '{"a":[' + filling * (400_000 // len(filling)) + "0]}"
    tracemalloc.start()
    started = time.process_time()
    try:
        assert parsed(whole(text)) is None
        assert tracemalloc.get_traced_memory()[1] < 200 * len(text)
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 5


def test_names_are_quoted_on_one_line() -> None:
    assert quoted("model.norm.weight") == "model.norm.weight"
    assert quoted("a\nb\x1b[31m") == r"'a\nb\x1b[31m'"
    assert len(quoted("x" * 10_000)) < 1100
