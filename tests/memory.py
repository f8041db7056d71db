"""What of a file is in a process's memory, as the kernel's page tables say."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from faasmoe.experts.mapping import TensorLocation

PAGE = mmap.PAGESIZE


def present_bytes(pids: Iterable[int], places: Sequence[TensorLocation]) -> int:
    """Bytes of `places` that the page tables of `pids` point to. Pages shared with other tensors do not count."""
    ranges = list(_inner_ranges(places))
    return sum(_present(pid, file, start, end) for pid in pids for file, start, end in ranges)


def mapped_bytes(pid: int, places: Sequence[TensorLocation]) -> int:
    """Bytes of `places` within reach of `pid`: in its address space, touched or not."""
    ranges = list(_inner_ranges(places))
    return sum(
        max(0, min(end, offset + high - low) - max(start, offset))
        for low, high, offset, name in _maps(pid)
        for file, start, end in ranges
        if name == str(file)
    )


def private_memory_holds(pid: int, pattern: bytes) -> bool:
    """Whether `pattern` is anywhere in the anonymous memory of `pid`."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end, _, name in _maps(pid):
            if name and not name.startswith("[heap"):
                continue
            memory.seek(start)
            try:
                if pattern in memory.read(end - start):
                    return True
            except OSError:  # reserved, not readable
                continue
    return False


def held_bytes(pids: Iterable[int]) -> int:
    """Bytes that processes hold together: of pages that others of this machine have mapped as well, all of them.

    That is their shares of memory that forks have in common, and of each part of a file what the process with most of
    it has, since the others have the same. A process that has ended holds nothing.
    """
    own, parts = 0, {}
    for pid in pids:
        with suppress(ProcessLookupError, FileNotFoundError):
            own += 1024 * _figures(Path(f"/proc/{pid}/smaps_rollup"))[-1][1]["Pss_Anon"]
            for part, figures in _figures(Path(f"/proc/{pid}/smaps")):
                parts[part] = max(parts.get(part, 0), 1024 * (figures["Rss"] - figures["Anonymous"]))
    return own + sum(parts.values())


def _figures(file: Path) -> list[tuple[tuple[str, ...], dict[str, int]]]:
    """Offset, device, inode and name of each mapping, with its figures in KiB. See proc(5)."""
    found: list[tuple[tuple[str, ...], dict[str, int]]] = []
    for line in file.read_text().splitlines():
        name, *rest = line.split(maxsplit=5)
        if not name.endswith(":"):
            found.append((tuple(rest[1:]), {}))
        elif rest[0].isdecimal():
            found[-1][1][name.removesuffix(":")] = int(rest[0])
    return found


def _inner_ranges(places: Sequence[TensorLocation]) -> Iterator[tuple[Path, int, int]]:
    """Neighbouring tensors joined, and cut to whole pages."""
    joined: list[list] = []
    for place in sorted(places, key=lambda p: (str(p.file), p.offset)):
        if joined and joined[-1][0] == place.file and joined[-1][2] == place.offset:
            joined[-1][2] += place.nbytes
        else:
            joined.append([place.file, place.offset, place.offset + place.nbytes])
    for file, start, end in joined:
        first, last = -(-start // PAGE) * PAGE, end // PAGE * PAGE
        if first < last:
            yield file, first, last


def _maps(pid: int) -> Iterator[tuple[int, int, int, str]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in fields[0].split("-"))
        yield start, end, int(fields[2], 16), fields[5] if len(fields) > 5 else ""


def _present(pid: int, file: Path, start: int, end: int) -> int:
    count = 0
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for low, high, offset, name in _maps(pid):
            if name != str(file):
                continue
            first = max(start, offset)
            last = min(end, offset + high - low)
            if first >= last:
                continue
            pages = range((low + first - offset) // PAGE, -(-(low + last - offset) // PAGE))
            pagemap.seek(8 * pages.start)
            entries = pagemap.read(8 * len(pages))
            count += sum(entry >> 63 for (entry,) in struct.iter_unpack("<Q", entries))
    return count * PAGE
