from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.util import machine
from faasmoe.util.machine import ControlGroups

MIB, GIB = 1 << 20, 1 << 30
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "".join(
    f"{number} 31 0:{number} {{top}} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n"
    for number, name in enumerate(("memory", "cpu,cpuacct", "pids"), 35)
)
NONE_V1 = 9223372036854771712


def write(root: Path, group: str, **files: object) -> None:
    folder = root / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_version_2_takes_the_least_of_all_ancestors(tmp_path: Path) -> None:
    write(tmp_path, "", memory__stat="active_file 1")  # the topmost one has no limits
    write(tmp_path, "a", memory__max=2 * GIB, memory__high="max", memory__current=GIB, memory__stat="anon 5",
          cpu__max="150000 100000", pids__max=100, pids__current=40)  # fmt: skip
    write(tmp_path, "a/b", memory__max="max", memory__high="max", cpu__max="max 100000", pids__max="max")
    write(tmp_path, "a/b/c", memory__max=3 * GIB, memory__high=1900 * MIB, memory__current=600 * MIB,
          memory__stat=f"anon {MIB}\nactive_file {100 * MIB}\ninactive_file {200 * MIB}\nslab_reclaimable {50 * MIB}",
          cpu__max="400000 100000", pids__max=50, pids__current=20)  # fmt: skip
    groups = ControlGroups("0::/a/b/c\n", V2, tmp_path)
    assert groups.memory_limit() == 1900 * MIB
    assert groups.memory_left() == GIB  # of a; c has 1900 - (600 - 350)
    assert groups.processors() == 1.5
    assert groups.tasks_left() == 30


def test_version_1_takes_the_least_of_all_ancestors(tmp_path: Path) -> None:
    write(tmp_path, "memory/a", memory__limit_in_bytes=GIB, memory__usage_in_bytes=700 * MIB,
          memory__stat=f"hierarchical_memory_limit {GIB}\ntotal_active_file {100 * MIB}\nactive_file 7")  # fmt: skip
    write(tmp_path, "memory/a/b", memory__limit_in_bytes=NONE_V1, memory__usage_in_bytes=MIB,
          memory__stat=f"hierarchical_memory_limit {GIB}")  # fmt: skip
    write(tmp_path, "cpu,cpuacct/x", cpu__cfs_quota_us=50000, cpu__cfs_period_us=100000)
    write(tmp_path, "cpu,cpuacct/x/y", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    write(tmp_path, "pids/z", pids__max=10, pids__current=12)
    membership = "5:pids:/z\n4:memory:/a/b\n3:cpu,cpuacct:/x/y\n1:name=systemd:/s\n"
    groups = ControlGroups(membership, V1.format(top="/"), tmp_path)
    assert groups.memory_limit() == GIB
    assert groups.memory_left() == (1024 - 600) * MIB
    assert groups.processors() == 0.5
    assert groups.tasks_left() == 0


def test_hybrid_machines_have_controllers_of_both_versions(tmp_path: Path) -> None:
    mounts = V1.format(top="/") + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    write(tmp_path, "memory/a", memory__limit_in_bytes=GIB, memory__usage_in_bytes=0)
    write(tmp_path, "unified/a", cpu__max="200000 100000")
    groups = ControlGroups("4:memory:/a\n0::/a\n", mounts, tmp_path)
    assert groups.memory_limit() == groups.memory_left() == GIB
    assert groups.processors() == 2
    assert groups.tasks_left() is None


def test_a_limit_that_only_the_kernel_sees_counts(tmp_path: Path) -> None:
    write(tmp_path, "memory", memory__limit_in_bytes=NONE_V1, memory__stat=f"hierarchical_memory_limit {GIB}")
    assert ControlGroups("4:memory:/docker/c\n", V1.format(top="/docker/c"), tmp_path).memory_limit() == GIB


@pytest.mark.parametrize(
    ("membership", "top"),
    [
        ("0::/docker/abc", "/docker/abc"),  # the container sees its own group as the topmost
        ("0::/", "/"),  # and has a name space of its own
        ("0::/../..", "/"),  # the process was moved out of it
        ("0::/elsewhere", "/docker/abc"),
        ("0::/", "/../.."),  # the mount is from outside
    ],
)
def test_containers_have_the_limits_of_what_they_see(tmp_path: Path, membership: str, top: str) -> None:
    (tmp_path / "memory.max").write_text("5")  # not to be found by dots
    write(tmp_path, "", memory__max=GIB, memory__current=MIB, cpu__max="100000 100000")
    groups = ControlGroups(membership, V2.replace(" / ", f" {top} ", 1), tmp_path)
    assert groups.memory_limit() == GIB
    assert groups.memory_left() == GIB - MIB
    assert groups.processors() == 1


def test_the_mount_that_has_the_group_is_taken(tmp_path: Path) -> None:
    other = V2.replace(" / ", " /other ", 1).replace("/sys/fs/cgroup", "/sys/fs/cgroup/other\\040one")
    write(tmp_path, "other one", memory__max=1)
    write(tmp_path, "mine", memory__max=GIB)
    groups = ControlGroups("0::/mine\n", other + V2, tmp_path)
    assert groups.memory_limit() == GIB
    assert ControlGroups("0::/other\n", other, tmp_path).memory_limit() == 1


def test_what_is_missing_limits_nothing(tmp_path: Path) -> None:
    for membership, mounts in (("", ""), ("0::/a\n", V2), ("0::/a\n", ""), ("", V2), ("4:memory:/a\n", V1)):
        groups = ControlGroups(membership, mounts.format(top="/"), tmp_path)
        limits = (groups.memory_limit(), groups.memory_left(), groups.processors(), groups.tasks_left())
        assert limits == (None, None, None, None)


@given(membership=st.text(max_size=60), mounts=st.text(max_size=120))
def test_nonsense_limits_nothing(membership: str, mounts: str) -> None:
    groups = ControlGroups(membership, mounts, Path("/nowhere"))
    assert groups.memory_limit() is groups.processors() is groups.tasks_left() is None


def test_what_may_be_used_is_the_least_of_machine_and_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * GIB, available=4 * GIB))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(ControlGroups, "own", lambda: ControlGroups("0::/\n", V2, tmp_path))
    assert (machine.memory(), machine.available_memory(), machine.cores()) == (8 * GIB, 4 * GIB, 6)
    assert not machine.memory_is_limited()
    write(tmp_path, "", memory__max=3 * GIB, memory__current=GIB, cpu__max="150000 100000")
    assert (machine.memory(), machine.available_memory(), machine.cores()) == (3 * GIB, 2 * GIB, 2)
    assert machine.memory_is_limited()
    write(tmp_path, "", memory__max=30 * GIB, memory__current=GIB, cpu__max="10000 100000")
    assert (machine.memory(), machine.available_memory(), machine.cores()) == (8 * GIB, 4 * GIB, 1)


def test_this_process_has_groups_of_some_kind() -> None:
    assert ControlGroups.own().processors() is None or machine.cores() >= 1
    assert 0 < machine.available_memory() <= machine.memory()


def test_nobody_else_asks_the_machine_for_what_a_group_may_limit() -> None:
    allowed = {
        "util/machine.py",
        "platforms/local/client/fanout.py",
        "evaluation/results.py",
        "cli/kernels/cache.py",
    }  # who binds, and who describes
    source = Path(machine.__file__).parents[1]
    asking = re.compile(r"sched_getaffinity|cpu_count|virtual_memory|/sys/fs/cgroup/\w")
    found = {str(file.relative_to(source)) for file in source.rglob("*.py") if asking.search(file.read_text())}
    assert found == allowed


def test_keys_and_values_have_a_share_of_what_the_group_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faasmoe.engine.kv.allocator import budget
    from faasmoe.protocol.config import EngineOptions

    write(tmp_path, "a", memory__max=20 * MIB, memory__current=10 * MIB)
    write(tmp_path, "a/b", memory__max="max", memory__current=MIB)
    monkeypatch.setattr(ControlGroups, "own", lambda: ControlGroups("0::/a/b\n", V2, tmp_path))
    assert budget(EngineOptions()) == 2 * MIB
