"""The memory budget of the embedded platform, and what instances release."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from faasmoe.errors import DeadlineExceeded, OptionError, PlatformError, UnknownFunction
from faasmoe.evaluation.meters.processes import footprint
from faasmoe.experts import PRELOAD
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.local.client.control import Activator
from faasmoe.platforms.local.daemon.zygote_client import PREFORKED
from faasmoe.platforms.local.limits import INSTANCE_BYTES
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.protocol.messages import Activated, Wanted
from tests import processes
from tests.conformance.conftest import naming, spec
from tests.integration.local_platform.conftest import ask
from tests.tools import tool
from tests.waiting import wait_until

_WEIGHTS = 64 << 20  # bytes


def own_bytes(spec: FunctionSpec) -> int:
    """What daemon and zygote count for in a budget."""
    with LocalPlatform() as platform:
        platform.deploy([spec])
        platform.prewarm([spec.name])
        status = platform.status()
        return status.memory_used - sum(function.memory for function in status.functions)


def heavy(name: str, handler: str, artifact: Path) -> FunctionSpec:
    """A function beside whose memory that of daemon and zygote, which varies, is small."""
    return spec(name, handler, artifact, memory=_WEIGHTS)


@pytest.fixture
def tight(artifact: Path) -> Iterator[LocalPlatform]:
    """A pool that has room for two instances of heavy functions."""
    budget = own_bytes(spec("f", "echo", artifact)) + 5 * (_WEIGHTS + INSTANCE_BYTES) // 2
    with LocalPlatform(LocalOptions(memory_budget=budget)) as running:
        yield running


def instances(platform: LocalPlatform) -> list[int]:
    return [int(each.id) for status in platform.status().functions for each in status.instances]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this Python counts all references")
def test_instances_that_are_forked_later_share_more_with_the_zygote(artifact: Path) -> None:
    with LocalPlatform(LocalOptions(preload=PRELOAD)) as platform:
        platform.deploy([spec(name, "pid", artifact) for name in ("first", "second", "later")])
        first, _ = map(int, ask(platform, "first", "second"))  # which may have waited before the zygote settled
        settled = 2 + 2 + PREFORKED  # daemon, zygote, two instances, and the next workers
        assert wait_until(lambda: len(processes.of_pool(platform)) == settled)
        (later,) = map(int, ask(platform, "later"))
        assert footprint(later).private < 0.8 * footprint(first).private


def test_a_fan_out_wider_than_the_budget_is_run_in_turns(tight: LocalPlatform, artifact: Path) -> None:
    tight.deploy([heavy(f"f{i}", "echo", artifact) for i in range(6)])
    assert ask(tight, *(f"f{i}" for i in range(6)), payload=b"x") == [b"A:x"] * 6
    status = tight.status()
    assert status.memory_budget is not None
    assert status.memory_used <= status.memory_budget
    assert sum(function.evictions for function in status.functions) >= 4
    assert len(instances(tight)) <= 2


def test_the_least_valuable_instance_makes_room(tight: LocalPlatform, artifact: Path) -> None:
    tight.deploy([heavy(name, "echo", artifact) for name in ("often", "once", "new")])
    for _ in range(20):
        ask(tight, "often")
    ask(tight, "once")
    ask(tight, "new")
    assert {s.name: s.evictions for s in tight.status().functions} == {"often": 0, "once": 1, "new": 0}


def test_a_call_waits_for_memory_and_then_says_so(tight: LocalPlatform, artifact: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    tight.deploy([heavy(f"busy{i}", "patient", naming(tmp_path / "pipe")) for i in range(2)])
    tight.deploy([heavy("f", "echo", artifact)])
    with LocalPlatform(folder=tight.folder) as other:
        waiting = threading.Thread(target=ask, args=(other, "busy0", "busy1"))
        waiting.start()
        assert wait_until(lambda: [s.state for s in tight.status().functions[:2]] == ["busy", "busy"])
        with pytest.raises(
            DeadlineExceeded, match=r"function f: no instance within the deadline: the memory budget"
        ):
            ask(tight, "f", seconds=0.5)
        with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
            pipe.write(b"..")
            assert ask(tight, "f") == [b"A:"]  # as soon as one of the others is idle
            waiting.join(60)
    assert not waiting.is_alive()


def test_instances_that_nobody_calls_make_room(tight: LocalPlatform, artifact: Path) -> None:
    tight.deploy([heavy(name, "echo", artifact) for name in ("a", "b", "c", "d", "e")])
    tight.prewarm(["a", "b"])
    assert ask(tight, "c", "d", seconds=20) == [b"A:"] * 2
    dreamer = Activator(tight.folder)
    assert dreamer.request([Wanted(0, "a"), Wanted(1, "b")], 20)
    assert all(isinstance(dreamer.answer(), Activated) for _ in range(2))  # promised to somebody who will not call
    assert ask(tight, "e", seconds=20) == [b"A:"]
    dreamer.close()


def test_who_waits_for_memory_gets_what_is_deployed_by_then(tight: LocalPlatform, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "new").write_text("B:")
    tight.deploy([heavy(name, "patient", naming(tmp_path / "pipe")) for name in ("busy0", "busy1")])
    tight.deploy([heavy(name, "echo", tmp_path / "gone") for name in ("f", "g", "h")])
    with ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(4))
        clients = [stack.enter_context(LocalPlatform(folder=tight.folder)) for _ in range(3)]
        busy = executor.submit(ask, tight, "busy0", "busy1")
        assert wait_until(lambda: [s.state for s in tight.status().functions[:2]] == ["busy", "busy"])
        given_up = Activator(tight.folder)
        assert given_up.request([Wanted(0, "h")], 60)
        assert wait_until(lambda: tight.status().waiting == 1)
        waiting = [executor.submit(ask, c, name) for c, name in zip(clients, ("f", "g"), strict=False)]
        assert wait_until(lambda: tight.status().waiting == 3)
        given_up.close()
        assert wait_until(lambda: tight.status().waiting == 2)
        tight.deploy([heavy("f", "echo", tmp_path / "new")])
        tight.remove(["g"])
        with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
            pipe.write(b"..")
            assert busy.result(60) == [b"."] * 2
        assert waiting[0].result(60) == [b"B:"]
        with pytest.raises(UnknownFunction, match="function g: it is not deployed"):
            waiting[1].result(60)


def test_a_budget_that_can_never_do_is_refused(tight: LocalPlatform, artifact: Path) -> None:
    tight.deploy(
        [heavy(f"f{i}", "echo", artifact) for i in range(3)] + [spec("big", "echo", artifact, memory=1 << 40)]
    )
    tight.check_fits(["f0", "f1"])
    with pytest.raises(OptionError, match=r"memory budget is too small: a single token needs [0-9]+ MiB"):
        tight.check_fits(["f0", "f1", "f2"])
    with pytest.raises(PlatformError, match=r"function big: it needs .* but the memory budget is"):
        ask(tight, "big")


def test_released_weights_leave_the_page_cache(tmp_path: Path) -> None:
    fincore = tool("fincore", "util-linux-extra")
    weights = tmp_path / "weights"
    size, cuts = 16 << 20, (5000, 4 << 20, (7 << 20) + 4096, 15 << 20)  # most of them within a large folio
    weights.write_bytes(os.urandom(size))
    with weights.open("rb") as stream:
        os.fsync(stream.fileno())
        stream.read()
    files = tuple(FileRange(weights, start, end - start) for start, end in pairwise((0, *cuts, size)))
    with LocalPlatform(LocalOptions(release_page_cache=True)) as platform:
        platform.deploy([spec("f", "echo", weights, files=files)])
        platform.prewarm(["f"])
        platform.stop(["f"])
        assert wait_until(lambda: resident(fincore, weights) == 0)


def resident(fincore: str, file: Path) -> int:
    """Pages of a file in the page cache, as `fincore` says."""
    out = subprocess.run([fincore, "-nr", "-o", "PAGES", file], capture_output=True, text=True, check=True)
    return int(out.stdout)
