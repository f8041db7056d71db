from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol.segment import LARGEST, Mapping, Segment, padded


@contextmanager
def memory(size: int, seals: int = 0) -> Iterator[int]:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    with closing(Segment(1, writable=False)) as segment:
        return Mapping(os.dup(segment.fd), writable=False)


@given(st.integers(0, 1 << 40))
def test_padding_is_to_cache_lines_and_no_more_than_one(nbytes: int) -> None:
    assert padded(nbytes) % 64 == 0
    assert 0 <= padded(nbytes) - nbytes < 64


@given(st.lists(st.lists(st.binary(max_size=200), max_size=3), max_size=8))
def test_what_is_written_is_read_on_the_other_side(writes: list[list[bytes]]) -> None:
    with closing(Segment(1, writable=False)) as segment:
        mapping = Mapping(os.dup(segment.fd), writable=False)
        places = [segment.write(parts) for parts in writes]
        end = 0
        for (at, length), parts in zip(places, writes, strict=True):
            assert at == end
            end = at + padded(length)
            assert mapping.slice(at, length) == b"".join(parts)
        segment.clear()
        assert segment.place(1) == 0


def test_parts_of_any_dtype_are_written_as_bytes() -> None:
    with closing(Segment(1, writable=False)) as segment:
        numbers = memoryview(bytearray(range(16))).cast("I")
        assert segment.write([b"ab", numbers, bytearray(b"c")]) == (0, 19)
        assert bytes(segment.view[:19]) == b"ab" + bytes(range(16)) + b"c"


def test_a_reply_written_by_the_other_side_is_read_here() -> None:
    with closing(Segment(1, writable=True)) as segment:
        at = [segment.place(100) for _ in range(2)][1]
        assert at == 128
        mapping = Mapping(os.dup(segment.fd), writable=True)
        mapping.slice(at, 5)[:] = b"reply"
        assert segment.view[at : at + 5] == b"reply"


def test_sizes_are_powers_of_two_from_a_mebibyte() -> None:
    for nbytes, size in ((0, 1 << 20), (1 << 20, 1 << 20), ((1 << 20) + 1, 1 << 21), (5 << 20, 8 << 20)):
        with closing(Segment(nbytes, writable=True)) as segment:
            assert segment.size == len(segment.view) == os.fstat(segment.fd).st_size == size


def test_a_segment_for_reading_cannot_be_written_by_others() -> None:
    with closing(Segment(1, writable=False)) as segment:
        with pytest.raises(ValueError, match="not a segment"):
            Mapping(os.dup(segment.fd), writable=True)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(segment.fd, b"x", 0)
        mapping = Mapping(os.dup(segment.fd), writable=False)
        assert mapping.view.readonly
        with pytest.raises(TypeError):
            mapping.slice(0, 1)[:] = b"x"


def test_a_segment_for_reading_cannot_be_written_when_it_is_opened_again() -> None:
    with closing(Segment(1, writable=False)) as segment:
        again = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            with pytest.raises(PermissionError):
                os.pwrite(again, b"x", 0)
            with pytest.raises(PermissionError):
                mmap.mmap(again, segment.size)
        finally:
            os.close(again)
        segment.write([b"its maker can"])
        assert Mapping(os.dup(segment.fd), writable=False).slice(0, 13) == b"its maker can"


@pytest.mark.parametrize("writable", [True, False])
def test_nobody_can_change_the_size_of_a_segment(writable: bool) -> None:
    with closing(Segment(1, writable=writable)) as segment:
        for size in (0, segment.size - 1, segment.size + 1):
            with pytest.raises(OSError):  # noqa: PT011 - another errno for each kind of descriptor
                os.ftruncate(segment.fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        assert os.fstat(segment.fd).st_size == segment.size


def test_descriptors_are_not_inherited() -> None:
    with closing(Segment(1, writable=True)) as segment:
        assert not os.get_inheritable(segment.fd)


def test_closing_ends_neither_views_nor_the_other_side() -> None:
    segment = Segment(1, writable=False)
    mapping = Mapping(os.dup(segment.fd), writable=False)
    segment.write([b"still here"])
    view = segment.view[:10]
    segment.close()
    assert not is_open(segment.fd)
    assert view == mapping.slice(0, 10) == b"still here"


def test_a_mapping_closes_its_descriptor() -> None:
    with closing(Segment(1, writable=True)) as segment:
        fd = os.dup(segment.fd)
        Mapping(fd, writable=True)
        assert not is_open(fd)
        assert is_open(segment.fd)


SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@pytest.mark.parametrize(
    ("size", "seals"),
    [(mmap.PAGESIZE, 0), (mmap.PAGESIZE, fcntl.F_SEAL_GROW), (0, SEALED), (LARGEST + 1, SEALED)],
    ids=["unsealed", "may shrink", "empty", "too large"],
)
def test_other_memory_is_refused_and_closed(size: int, seals: int) -> None:
    with memory(size, seals) as own:
        fd = os.dup(own)
        with pytest.raises(ValueError, match=f"a segment of {size} bytes with seals"):
            Mapping(fd, writable=False)
        assert not is_open(fd)


def test_sealed_memory_of_another_maker_is_as_good() -> None:
    with memory(mmap.PAGESIZE, fcntl.F_SEAL_SHRINK) as own:
        assert len(Mapping(os.dup(own), writable=True).view) == mmap.PAGESIZE


@pytest.mark.parametrize("writable", [True, False])
def test_an_ordinary_file_is_refused_and_closed(tmp_path: Path, writable: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(mmap.PAGESIZE))
    for path in (file, tmp_path):
        fd = os.open(path, os.O_RDONLY if path is tmp_path else os.O_RDWR)
        with pytest.raises(ValueError, match="segment"):
            Mapping(fd, writable)
        assert not is_open(fd)


def test_a_pipe_is_refused_and_closed() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with pytest.raises(ValueError, match="not a segment"):
        Mapping(writing, writable=True)
    assert os.read(reading, 1) == b""  # nobody has the writing end any more
    os.close(reading)


@given(st.integers(0, 1 << 14).map(lambda lines: 64 * lines), st.integers(0, 1 << 20))
def test_slices_inside_have_their_length(mapping: Mapping, at: int, length: int) -> None:
    length = min(length, len(mapping.view) - at)
    assert len(mapping.slice(at, length)) == length


@given(st.integers(0, 2**64 - 1).filter(lambda at: at % 64), st.integers(0, 2**64 - 1))
def test_slices_that_are_not_aligned_are_refused(mapping: Mapping, at: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes at {at} of"):
        mapping.slice(at, length)


@given(st.integers(0, 1 << 58).map(lambda lines: 64 * lines), st.integers(1, 2**64 - 1))
def test_slices_that_end_outside_are_refused(mapping: Mapping, at: int, beyond: int) -> None:
    length = max(0, len(mapping.view) - at) + beyond
    with pytest.raises(ValueError, match=f"{length} bytes at {at} of"):
        mapping.slice(at, length)
