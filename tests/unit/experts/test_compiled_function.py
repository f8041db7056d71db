"""A function's answers without Python, compared with those of its handler."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.experts import fused, handler
from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.dtypes import BY_NAME
from faasmoe.experts.expert import ExpertForm, Gate
from faasmoe.experts.handler import ExpertFunction, load
from faasmoe.experts.kernels.library import ADDRESS, INT
from faasmoe.experts.mapping import TensorLocation
from faasmoe.experts.payload import Request, decode_reply, encode_request
from tests.instruction_sets import on_each

instruction_set = on_each(handler, fused)
H, INNER, E, LAYER = 16, 8, 3, 5
RESERVE = ctypes.CFUNCTYPE(ADDRESS, ADDRESS, INT)
TIMINGS = slice(16, 40)  # of a reply's header


class Call(ctypes.Structure):
    """The beginning of `Call` of c/serving/frame.h."""

    _fields_ = (
        ("payload", ADDRESS),
        ("length", INT),
        ("shared", ADDRESS),
        ("shared_length", INT),
        ("waited", INT),
    )


def made(folder: Path, dtype: str) -> ExpertFunction:
    numbers = np.random.default_rng(0).standard_normal(3 * E * H * INNER).astype(np.float32)
    stored = numbers if dtype == "F32" else (numbers.view(np.uint32) >> 16).astype(np.uint16)
    (folder / "weights").write_bytes(stored.tobytes())
    size = H * INNER * stored.itemsize

    def at(number: int, *shape: int) -> TensorLocation:
        return TensorLocation(folder / "weights", number * size, dtype, shape)

    experts = tuple(
        ExpertLocations((at(3 * e, INNER, H), at(3 * e + 1, INNER, H)), at(3 * e + 2, H, INNER)) for e in range(E)
    )
    artifact = Artifact(LAYER, tuple(range(E)), dtype, ExpertForm(Gate("glu", "silu")), experts)
    (folder / "artifact.json").write_text(artifact.to_text())
    return load(str(folder / "artifact.json"))


@pytest.fixture(scope="module", params=["F32", "BF16"])
def function(request: Any, tmp_path_factory: pytest.TempPathFactory, instruction_set: str) -> ExpertFunction:
    return made(tmp_path_factory.mktemp("function"), request.param)


def compiled(function: ExpertFunction, data: bytes, shared: bytes | None, room: int = 1 << 16) -> bytes | None:
    """The reply of the compiled function to a copy of `data`; None: it leaves the call to the handler."""
    payload = (ctypes.c_uint64 * (len(data) // 8 + 1))()
    ctypes.memmove(payload, data, len(data))
    rows = None if shared is None else (ctypes.c_char * len(shared)).from_buffer_copy(shared)
    reply = (ctypes.c_uint64 * (room // 8 + 1))()
    reserve = RESERVE(lambda _, size: ctypes.addressof(reply) if size <= room else None)
    call = Call(
        ctypes.addressof(payload),
        len(data),
        None if rows is None else ctypes.addressof(rows),
        len(shared or b""),
        1234,
    )
    entry, context = function.compiled
    assert entry
    assert context
    answer = ctypes.CFUNCTYPE(INT, ADDRESS, ADDRESS, ADDRESS, ADDRESS)(entry)
    length = answer(context, ctypes.addressof(call), None, ctypes.cast(reserve, ADDRESS))
    return None if length < 0 else ctypes.string_at(reply, length)


def by_handler(function: ExpertFunction, data: bytes, shared: bytes | None) -> bytes:
    rows = None if shared is None else memoryview(shared)
    return bytes(function(bytearray(data), rows, 1234, bytearray))


def both(function: ExpertFunction, data: bytes, shared: bytes | None) -> tuple[bytes | None, bytes]:
    """What the compiled function and the handler answer to a call that is not the first."""
    function._memory.first = False
    return compiled(function, data, shared), by_handler(function, data, shared)


def dtype_of(function: ExpertFunction) -> str:
    return function._block.artifact.dtype


def same(one: bytes, other: bytes) -> bool:
    """All but the times."""
    return one[: TIMINGS.start] + one[TIMINGS.stop :] == other[: TIMINGS.start] + other[TIMINGS.stop :]


@st.composite
def requests(draw: st.DrawFn, dtype: str) -> tuple[bytes, bytes | None]:
    """An envelope, and the shared buffer if it has its rows there."""
    tokens, slots = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    generator = np.random.default_rng(draw(st.integers(0, 9)))
    of_shared = draw(st.booleans())
    rows = generator.standard_normal((7 if of_shared else tokens, H)).astype(np.float32)
    if dtype == "BF16":
        rows = (rows.view(np.uint32) >> 16).astype(BY_NAME[dtype])
    picked = generator.integers(0, 7, tokens, np.int32) if of_shared else None
    row, expert = generator.integers(0, tokens, slots, np.int32), generator.integers(0, E, slots, np.int32)
    weight = generator.standard_normal(slots).astype(np.float32)
    data = b"".join(
        encode_request(Request(layer=LAYER, rows=rows, row=row, expert=expert, weight=weight, picked=picked))
    )
    return data, rows.tobytes() if of_shared else None


@given(data=st.data())
def test_sums_have_the_bits_of_the_handlers(function: ExpertFunction, data: st.DataObject) -> None:
    asked, shared = data.draw(requests(dtype_of(function)))
    reply, wanted = both(function, asked, shared)
    assert reply is not None
    assert decode_reply(bytearray(wanted)).error is None
    assert same(reply, wanted)


@given(data=st.data())
def test_an_envelope_with_a_changed_byte_is_answered_alike_or_left(
    function: ExpertFunction, data: st.DataObject
) -> None:
    asked, shared = data.draw(requests(dtype_of(function)))
    at, value = data.draw(st.integers(0, len(asked) - 1)), data.draw(st.integers(0, 255))
    asked = asked[:at] + bytes([value]) + asked[at + 1 :]
    reply, wanted = both(function, asked, shared)
    if decode_reply(bytearray(wanted)).error is not None:
        assert reply is None
    elif reply is not None:  # what is unusual may be the handler's, though there is an answer to it
        assert same(reply, wanted)


@given(data=st.data())
def test_hostile_numbers_are_left_to_the_handler(function: ExpertFunction, data: st.DataObject) -> None:
    """Any number in the header, in indices, and any length: nothing outside of the envelope is touched."""
    asked, shared = data.draw(requests(dtype_of(function)))
    place = data.draw(st.integers(2, len(asked) // 4 - 1)) * 4
    number = data.draw(st.sampled_from([0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1))
    asked = asked[:place] + struct.pack("<I", number) + asked[place + 4 :]
    asked = (asked + bytes(20))[: data.draw(st.sampled_from([len(asked), len(asked) - 4, len(asked) + 4, 23, 24]))]
    shared = data.draw(st.sampled_from([shared, None, b"", bytes(H), bytes(H * 8 + 1)]))
    reply, wanted = both(function, asked, shared)
    if decode_reply(bytearray(wanted)).error is not None:
        assert reply is None
    elif reply is not None:
        assert same(reply, wanted)


def envelope(function: ExpertFunction, value: float = 1.0) -> bytes:
    rows = np.full((1, H), value, np.float32)
    if dtype_of(function) == "BF16":
        rows = (rows.view(np.uint32) >> 16).astype(BY_NAME["BF16"])
    index = np.zeros(1, np.int32)
    return b"".join(
        encode_request(Request(layer=LAYER, rows=rows, row=index, expert=index, weight=np.ones(1, np.float32)))
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_sums_that_are_not_finite_are_left_to_the_handler(function: ExpertFunction, bad: float) -> None:
    assert compiled(function, envelope(function, bad), None) is None


def test_a_reply_without_room_is_left_to_the_handler(function: ExpertFunction) -> None:
    assert compiled(function, envelope(function), None, room=39) is None


def test_only_the_first_answer_is_cold_whoever_gives_it(function: ExpertFunction) -> None:
    for first, then in ((compiled, by_handler), (by_handler, compiled)):
        function._memory.first = True
        cold = decode_reply(bytearray(first(function, envelope(function), None) or b""))
        warm = decode_reply(bytearray(then(function, envelope(function), None) or b""))
        assert (cold.cold, warm.cold) == (True, False)
        assert (cold.timings.load, warm.timings.load) == (function._memory.load_ns, 0)
        assert cold.timings.queue == warm.timings.queue == 1234
        assert cold.timings.compute > 0


def test_what_the_function_leaves_does_not_count_as_its_first_answer(function: ExpertFunction) -> None:
    function._memory.first = True
    assert compiled(function, b"noise", None) is None
    assert function._memory.first
