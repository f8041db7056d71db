from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from faasmoe.evaluation.meters import processes
from faasmoe.evaluation.meters.processes import Family, Seen, look, proportional_set_size


def test_memory_that_is_touched_is_counted() -> None:
    size = 64 << 20
    # not from the heap, which may have as much that is free and touched already
    with mmap.mmap(-1, size) as block:
        before = proportional_set_size(os.getpid())
        block.write(b"x" * size)
        assert proportional_set_size(os.getpid()) - before > 0.9 * size


def test_a_process_that_is_gone_counts_nothing() -> None:
    assert proportional_set_size(2**22 + 1) == 0
    assert look(2**22 + 1) is None


def test_what_the_kernel_says_of_this_process() -> None:
    seen = look(os.getpid())
    assert seen is not None
    assert (seen.pid, seen.parent) == (os.getpid(), os.getppid())
    assert seen.cpu == pytest.approx(time.process_time(), abs=0.1)
    assert seen.rss >= proportional_set_size(os.getpid()) > 10_000_000


def test_a_family_begins_at_its_root_and_ends_with_it() -> None:
    family = Family(os.getpid(), "orchestrator")
    members = family.look()
    assert members["orchestrator"][0].pid == os.getpid()
    assert os.getppid() not in {one.pid for its in members.values() for one in its}
    assert Family(2**22 + 1, "gateway").look() == {}


def test_a_process_tells_its_role_and_those_that_tell_none_have_their_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On made-up processes: a daemon, its zygote and what that forks, and a shell of the daemon's."""
    parents = {10: 1, 11: 10, 12: 11, 13: 12, 14: 11, 99: 1}
    environments = {10: b"", 11: b"A=1\0FAASMOE_ROLE=daemon\0", 12: b"FAASMOE_ROLE=zygote\0", 14: b"HOME=/\0"}
    monkeypatch.setattr(os, "listdir", lambda _: [*map(str, parents), "self"])
    monkeypatch.setattr(
        processes, "look", lambda pid: Seen(pid=pid, parent=parents[pid], started=pid, cpu=0.0, reaped=0.0)
    )
    monkeypatch.setattr(Path, "read_bytes", lambda path: environments[int(path.parts[2])])
    members = Family(10, "gateway").look()
    found = {role: [one.pid for one in its] for role, its in members.items()}
    assert found == {"gateway": [10], "daemon": [11, 14], "zygote": [12], "instances": [13]}
