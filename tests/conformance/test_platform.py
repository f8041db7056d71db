"""Contract 2, every guarantee of it. One suite for every platform."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faasmoe.errors import DeadlineExceeded, FunctionError, PlatformError, UnknownFunction
from faasmoe.platforms.base import Call, FunctionStatus, Platform
from tests.conformance.conftest import naming, soon, spec
from tests.waiting import wait_until


def needs(platform: Platform, capability: str) -> None:
    if not getattr(platform.capabilities, capability):
        pytest.skip(f"the platform has no {capability}")


def status(platform: Platform, name: str = "f") -> FunctionStatus:
    return {status.name: status for status in platform.status().functions}[name]


def ask(platform: Platform, *functions: str, payload: bytes = b"", seconds: float = 60) -> list[bytes]:
    calls = [Call(name, [payload]) for name in functions]
    return [bytes(reply) for reply in platform.invoke_many(calls, soon(seconds))]


def test_deploying_starts_nothing(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    assert status(platform) == FunctionStatus("f")


def test_replies_come_in_the_order_of_calls(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec(f"f{i}", "echo", artifact) for i in range(8)])
    calls = [Call(f"f{i}", [f"{i}".encode(), b"", b"!" * i]) for i in reversed(range(8))]
    for _ in range(2):
        replies = platform.invoke_many(calls, soon())
        assert list(map(bytes, replies)) == [f"A:{i}{'!' * i}".encode() for i in reversed(range(8))]
    seen = status(platform, "f3")
    assert (len(seen.instances), seen.invocations, seen.cold_starts, seen.state) == (1, 2, 1, "idle")
    assert seen.p50 is not None
    assert seen.p99 is not None
    assert 0 < seen.p50 <= seen.p99 < 60


def test_a_function_may_be_called_twice_at_once(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    replies = platform.invoke_many([Call("f", [b"1"]), Call("f", [b"2"]), Call("f", [b"3"])], soon())
    assert list(map(bytes, replies)) == [b"A:1", b"A:2", b"A:3"]


def test_no_calls_no_replies(platform: Platform) -> None:
    assert list(platform.invoke_many([], soon())) == []


@pytest.mark.parametrize("size", [0, 1, 32 << 10, (32 << 10) + 1, 8 << 20])
def test_payloads_of_any_size_pass_both_ways(platform: Platform, artifact: Path, size: int) -> None:
    platform.deploy([spec("f", "echo", artifact), spec("g", "echo", artifact)])
    big = os.urandom(size)
    calls = [Call("f", [big], size + 2), Call("g", [big[: size // 2]], size + 2)]
    for _ in range(2):
        replies = platform.invoke_many(calls, soon())
        assert list(map(bytes, replies)) == [b"A:" + big, b"A:" + big[: size // 2]]


def test_a_reply_that_was_not_foreseen_is_an_error(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    with pytest.raises(FunctionError, match="the caller foresaw"):
        platform.invoke_many([Call("f", [b"x" * 100_000])], soon())
    assert ask(platform, "f", payload=b"1") == [b"A:1"]


def test_what_calls_share_reaches_all_of_them(platform: Platform, artifact: Path) -> None:
    needs(platform, "shared_memory")
    platform.deploy([spec(f"f{i}", "shared", artifact) for i in range(3)])
    for size in (100, 5 << 20, 1 << 20):
        shared = os.urandom(size)
        ranges = [(0, size), (size // 2, size), (7, 8)]
        calls = [Call(f"f{i}", [b"%d %d" % r], size) for i, r in enumerate(ranges)]
        replies = platform.invoke_many(calls, soon(), shared)
        assert [bytes(reply) for reply in replies] == [shared[a:b] for a, b in ranges]


def test_unknown_functions_are_named(platform: Platform, artifact: Path) -> None:
    for act in (lambda: ask(platform, "ghost"), lambda: platform.remove(["ghost"]),
                lambda: platform.stop(["ghost"]), lambda: platform.prewarm(["ghost"])):  # fmt: skip
        with pytest.raises(UnknownFunction, match="function ghost: it is not deployed"):
            act()
    platform.deploy([spec("f", "echo", artifact)])
    assert ask(platform, "f") == [b"A:"]
    platform.remove(["f"])
    with pytest.raises(UnknownFunction, match="function f"):
        ask(platform, "f")


def test_deploying_again_runs_the_new_artifact(platform: Platform, artifact: Path, tmp_path: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    assert ask(platform, "f") == [b"A:"]
    (tmp_path / "other").write_text("B:")
    platform.deploy([spec("f", "echo", tmp_path / "other")])
    assert ask(platform, "f") == [b"B:"]


def test_deploying_the_same_again_disturbs_nothing(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "birth", artifact)])
    before = ask(platform, "f")
    platform.deploy([spec("f", "birth", artifact)])
    assert ask(platform, "f") == before


def test_prewarm_starts_without_a_call(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    platform.prewarm(["f"])
    platform.prewarm(["f"])
    seen = status(platform)
    assert (len(seen.instances), seen.invocations, seen.cold_starts) == (1, 0, 1)


def test_an_instance_has_an_id_of_its_own_and_a_node(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec(name, "echo", artifact) for name in "fg"])
    platform.prewarm(["f", "g"])
    seen = [instance for function in platform.status().functions for instance in function.instances]
    assert len(set(seen)) == 2
    assert all(instance.node for instance in seen)


def test_stopped_functions_have_no_instance_until_they_are_called(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "birth", artifact)])
    first = ask(platform, "f")
    platform.stop(["f"])
    assert wait_until(lambda: status(platform).state == "zero")
    assert ask(platform, "f") != first
    seen = status(platform)
    assert (seen.invocations, seen.cold_starts, seen.deaths) == (2, 2, 0)


def test_stopping_lets_a_running_call_finish(platform: Platform, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    platform.deploy([spec("f", "patient", naming(tmp_path / "pipe"))])
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(lambda: ask(platform, "f", payload=b"calm "))
        assert wait_until(lambda: status(platform).state == "busy")
        with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
            platform.stop(["f"])
            pipe.write(b".")
        assert asked.result(60) == [b"calm ."]
    assert wait_until(lambda: status(platform).state == "zero")
    assert status(platform).cold_starts == 1


def test_idle_instances_stop_and_come_back(platform: Platform, artifact: Path) -> None:
    needs(platform, "autoscaling")
    platform.deploy([spec("f", "birth", artifact, keep_alive=0.2)])
    first = ask(platform, "f")
    assert wait_until(lambda: status(platform).state == "zero")
    assert ask(platform, "f") != first
    assert (status(platform).cold_starts, status(platform).deaths) == (2, 0)


def test_a_minimum_of_instances_is_kept(platform: Platform, artifact: Path) -> None:
    needs(platform, "autoscaling")
    platform.deploy([spec("f", "birth", artifact, keep_alive=0.1, min_instances=2, max_instances=2)])
    assert wait_until(lambda: len(status(platform).instances) == 2)
    platform.stop(["f"])
    assert wait_until(lambda: status(platform).cold_starts == 4 and len(status(platform).instances) == 2)


@pytest.mark.parametrize(("maximum", "concurrency", "instances"), [(1, 1, 1), (1, 2, 1), (2, 1, 2), (2, 2, 1)])
def test_calls_at_once_use_as_many_instances_as_they_may(
    platform: Platform, tmp_path: Path, maximum: int, concurrency: int, instances: int
) -> None:
    needs(platform, "autoscaling")
    os.mkfifo(tmp_path / "pipe")
    options = {"max_instances": maximum, "concurrency": concurrency}
    platform.deploy([spec("f", "patient", naming(tmp_path / "pipe"), **options)])
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(lambda: ask(platform, "f", "f", payload=b"x"))
        with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
            assert wait_until(lambda: len(status(platform).instances) == instances)
            pipe.write(b"..")
            assert asked.result(60) == [b"x."] * 2
    assert len(status(platform).instances) == instances


def test_a_function_that_fails_to_load_says_why(platform: Platform, artifact: Path, tmp_path: Path) -> None:
    platform.deploy([spec("bad", "unloadable", artifact), spec("f", "echo_named", naming(tmp_path / "gone"))])
    with pytest.raises(PlatformError, match="function bad: it cannot be loaded: OSError: no weights here"):
        ask(platform, "bad")
    with pytest.raises(PlatformError, match="function f: it cannot be loaded: FileNotFoundError"):
        ask(platform, "f")
    (tmp_path / "gone").write_text("back:")
    assert ask(platform, "f") == [b"back:"]


def test_running_out_of_memory_is_one_calls_failure(platform: Platform, artifact: Path) -> None:
    needs(platform, "isolation")
    platform.deploy([spec("f", "hungry", artifact)])
    with pytest.raises(FunctionError, match="function f failed with MemoryError"):
        ask(platform, "f", payload=b"%d" % (1 << 40))
    assert ask(platform, "f", payload=b"1000") == [b"1000"]
    assert status(platform).cold_starts == 1


def test_a_stuck_function_meets_the_deadline_and_stops_nobody_else(platform: Platform, artifact: Path) -> None:
    needs(platform, "isolation")
    platform.deploy([spec("stuck", "stuck", artifact), spec("f", "echo", artifact)])
    assert ask(platform, "f", payload=b"1") == [b"A:1"]
    with pytest.raises(DeadlineExceeded, match="function stuck: no answer within the deadline after 1 attempt"):
        ask(platform, "f", "stuck", seconds=1)
    assert ask(platform, "f", payload=b"2") == [b"A:2"]
    assert wait_until(lambda: status(platform, "stuck").state == "zero")


def test_a_lost_instance_is_replaced_within_the_call(platform: Platform, artifact: Path) -> None:
    needs(platform, "isolation")
    platform.deploy([spec("f", "mortal", naming(artifact)), spec("g", "echo", artifact)])
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(lambda: ask(platform, "f", "g", payload=b"1"))
        assert wait_until(lambda: status(platform).deaths > 0)
        artifact.unlink()  # what is started from now on lives
        assert asked.result(60)[0] == b"alive"
    assert status(platform).cold_starts > status(platform).deaths > 0


def test_the_caller_may_do_something_meanwhile(platform: Platform, artifact: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    platform.deploy([spec("f", "patient", naming(tmp_path / "pipe"))])
    threads = []

    def meanwhile() -> None:
        threads.append(threading.get_ident())
        assert wait_until(lambda: status(platform).state == "busy")
        pipe.write(b".")

    with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
        pipe.write(b".")
        assert ask(platform, "f", payload=b"cold ") == [b"cold ."]
        replies = platform.invoke_many([Call("f", [b"warm "])], soon(), None, meanwhile)
        assert list(map(bytes, replies)) == [b"warm ."]
    assert threads == [threading.get_ident()]


def test_what_is_raised_meanwhile_ends_the_batch_and_spoils_no_later_one(
    platform: Platform, artifact: Path
) -> None:
    def meanwhile() -> None:
        raise KeyError("mine")

    platform.deploy([spec("f", "echo", artifact), spec("g", "echo", artifact)])
    for payload in (b"1", b"2"):
        with pytest.raises(KeyError, match="mine"):
            platform.invoke_many([Call("f", [payload]), Call("g", [payload])], soon(), None, meanwhile)
        assert ask(platform, "f", "g", payload=payload * 3) == [b"A:" + payload * 3] * 2


def test_a_removed_function_leaves_no_instance(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec(name, "birth", artifact, memory=1 << 20) for name in "fg"])
    _, before = ask(platform, "f", "g")
    used = platform.status().memory_used
    platform.remove(["f"])
    assert [seen.name for seen in platform.status().functions] == ["g"]
    assert wait_until(lambda: platform.status().memory_used <= used - (1 << 20))
    assert ask(platform, "g") == [before]


def test_what_fits_is_known_before_anything_runs(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    platform.check_fits(["f"])
    with pytest.raises(UnknownFunction, match="function ghost"):
        platform.check_fits(["f", "ghost"])


def test_what_calls_have_taken_is_in_the_totals(platform: Platform, artifact: Path) -> None:
    before = platform.status().totals
    platform.deploy([spec(f"f{i}", "echo", artifact, memory=10**9, concurrency=2) for i in range(2)])
    busy = gb_seconds = 0.0
    for _ in range(10):
        replies = platform.invoke_many([Call(f"f{i % 2}", [b"x"]) for i in range(4)], soon())
        assert all(seconds > 0 for seconds in replies.busy)
        assert all(memory >= 10**9 for memory in replies.memory)
        busy += sum(replies.busy)
        gb_seconds += sum(b * m / 1e9 for b, m in zip(replies.busy, replies.memory, strict=True))
    platform.remove(["f0"])  # what it has done stays done
    assert wait_until(lambda: sum(len(function.instances) for function in platform.status().functions) == 1)
    after = platform.status().totals
    assert (after.invocations - before.invocations, after.cold_starts - before.cold_starts) == (40, 2)
    assert after.busy_seconds - before.busy_seconds == pytest.approx(busy)
    assert after.busy_gb_seconds - before.busy_gb_seconds == pytest.approx(gb_seconds)
    assert after.instance_gb_seconds - before.instance_gb_seconds > gb_seconds


def test_asking_for_status_does_not_disturb_calls(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    done = threading.Event()
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(lambda: [platform.status() for _ in iter(done.is_set, True)])
        for i in range(200):
            assert ask(platform, "f", payload=b"%d" % i) == [b"A:%d" % i]
        done.set()
        assert all(len(seen.functions) == 1 for seen in asked.result())
