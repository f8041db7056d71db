"""Slots, the record and the drain of an instance, whoever answers its calls."""

from __future__ import annotations

import ctypes
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.experts.kernels.library import ADDRESS, INT
from faasmoe.platforms.latency import bucket_of
from faasmoe.platforms.local.instance import connection, serving
from faasmoe.platforms.local.instance.connection import ServerConnection
from faasmoe.platforms.local.instance.serving import CallerMemory, drain_calls
from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import ReplyHeader, Status
from tests.instruction_sets import on_each
from tests.unit.platforms.local.instance.callers import Served, served
from tests.unit.platforms.local.protocol.frames import EMPTY, fresh

instruction_set = on_each(serving, connection)
CALL = frame.pack_call(EMPTY)
SOON = 20.0  # seconds; nothing takes as long
# `Function` of c/serving/calls.h: its context, the call, the caller, and what reserves room
COMPILED = ctypes.CFUNCTYPE(INT, ADDRESS, ADDRESS, ADDRESS, ADDRESS)
RESERVE = ctypes.CFUNCTYPE(ADDRESS, ADDRESS, INT)


@contextmanager
def another(ends: Served) -> Iterator[Served]:
    """Another connection to the same instance."""
    caller, theirs = socket.socketpair()
    with caller, theirs:
        yield Served(caller, ends.daemon, ServerConnection(theirs, ends.memory), ends.memory, ends.record)


def reply(ends: Served) -> ReplyHeader:
    ends.caller.settimeout(SOON)
    return frame.receive_reply(ends.caller, fresh())[0]


def answer(ends: Served) -> None:
    ends.server.call()
    ends.server.finish(*ends.server.stored(b""))


@contextmanager
def running(work: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(SOON)
    assert not thread.is_alive()


def until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not happens():
        assert time.monotonic() < end
        time.sleep(1e-4)


def test_a_call_is_counted_before_its_reply_can_be_read() -> None:
    with served() as ends:
        before = time.monotonic_ns()
        ends.caller.sendall(CALL)
        assert ends.server.next_call()
        record = ends.record
        assert (record.in_flight, record.invocations) == (1, 0)
        assert before <= record.busy_since <= time.monotonic_ns()
        time.sleep(2e-3)
        answer(ends)
        assert (record.in_flight, record.invocations) == (0, 1)
        assert before + 2_000_000 <= record.last_used == record.touched <= time.monotonic_ns()
        assert record.first_call == record.touched - record.busy_since >= 2_000_000
        assert record.latency[bucket_of(record.first_call)] == 1 == sum(record.latency)
        assert reply(ends).busy == record.busy == record.first_call
        first = record.first_call
        ends.caller.sendall(CALL)
        assert ends.server.next_call()
        answer(ends)
        assert (record.invocations, record.first_call, sum(record.latency)) == (2, first, 2)


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_calls_side_by_side_share_the_time_in_which_any_runs(steps: list[bool]) -> None:
    """Three connections; a step begins a call on the next one that has none, or ends the oldest."""
    with served(concurrency=3) as one, another(one) as two, another(one) as three:
        idle, busy, shares = [one, two, three], [], 0
        for begins in [*steps, *[False] * 3]:
            if begins and idle:
                busy.append(idle.pop(0))
                busy[-1].caller.sendall(CALL)
                assert busy[-1].server.next_call()
            elif not begins and busy:
                idle.append(busy.pop(0))
                answer(idle[-1])
                seen = reply(idle[-1])
                assert not seen.crowded
                shares += seen.busy
            assert one.record.in_flight == len(busy)
        assert shares == one.record.busy
        assert one.record.busy <= one.record.last_used - one.record.busy_since or one.record.invocations > 1


def test_calls_beyond_the_slots_wait_and_their_callers_are_told() -> None:
    with served() as one, another(one) as two:
        one.caller.sendall(CALL)
        two.caller.sendall(CALL)
        assert one.server.next_call()
        taken: list[int] = []

        def wait() -> None:
            assert two.server.next_call()
            taken.append(two.server.call()[2])
            answer(two)

        with running(wait):
            until(lambda: one.record.in_flight == 2)
            time.sleep(2e-3)
            assert not taken
            answer(one)
        assert taken[0] >= 2_000_000  # nanoseconds that it waited
        assert (reply(one).crowded, reply(two).crowded) == (1, 0)
        assert (one.record.invocations, one.record.in_flight) == (2, 0)


def test_many_callers_of_few_slots_are_all_answered() -> None:
    """More threads than cores, which take locks from each other in any order."""
    calls = 40
    most, here, lock = 0, 0, threading.Lock()

    def work(ends: Served) -> None:
        nonlocal most, here
        while ends.server.next_call():
            with lock:
                here += 1
                most = max(most, here)
            time.sleep(1e-5)
            with lock:
                here -= 1
            answer(ends)

    def ask(ends: Served) -> None:
        for _ in range(calls):
            ends.caller.sendall(CALL)
            reply(ends)
        ends.caller.shutdown(socket.SHUT_WR)

    with served(concurrency=2) as one, another(one) as two, another(one) as three, another(one) as four:
        all_ends = (one, two, three, four)
        threads = [threading.Thread(target=f, args=(ends,)) for ends in all_ends for f in (work, ask)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()
        assert 1 <= most <= 2
        assert (one.record.invocations, one.record.in_flight) == (4 * calls, 0)


def test_an_instance_that_drains_refuses_calls_and_ends_when_all_are_answered() -> None:
    with served() as one, another(one) as two:
        one.caller.sendall(CALL)
        assert one.server.next_call()
        with running(lambda: drain_calls(ctypes.addressof(one.memory), int(SOON * 1e9))):
            assert one.daemon.recv(1) == b"d"
            assert one.record.draining
            two.caller.sendall(CALL)
            two.caller.shutdown(socket.SHUT_WR)
            assert not two.server.next_call()
            assert reply(two).status == Status.DRAINING
            answer(one)
        assert reply(one).status == Status.OK
        assert (one.record.invocations, one.record.in_flight) == (1, 0)


def test_a_drain_does_not_wait_for_ever() -> None:
    with served() as ends:
        ends.caller.sendall(CALL)
        assert ends.server.next_call()
        drain_calls(ctypes.addressof(ends.memory), 1000)


@pytest.mark.parametrize("report", [False, True])
def test_the_daemon_hears_of_a_call_that_has_ended_if_it_wants_to(report: bool) -> None:
    with served() as ends:
        ends.daemon.setblocking(False)
        ends.record.report = report
        ends.caller.sendall(CALL)
        assert ends.server.next_call()
        answer(ends)
        if report:
            assert ends.daemon.recv(9) == b"d"
        else:
            with pytest.raises(BlockingIOError):
                ends.daemon.recv(9)


@contextmanager
def compiled() -> Iterator[tuple[Served, list[int]]]:
    """An instance with a compiled function, and what its calls asked for.

    It answers with as many bytes as a call asks for, and leaves to the handler those that ask for nothing.
    """
    sizes: list[int] = []

    def function(context: int, call: int, caller: int, reserve: int) -> int:
        payload, length = (ctypes.c_int64 * 2).from_address(call)
        sizes.append(int(ctypes.string_at(payload, length) or b"0"))
        room = RESERVE(reserve)(caller, sizes[-1])
        if not room or not sizes[-1]:
            return -1
        ctypes.memset(room, context, sizes[-1])
        return sizes[-1]

    kept = COMPILED(function)
    with served() as ends:
        ends.memory.function, ends.memory.context = ctypes.cast(kept, ADDRESS), ord("x")
        yield ends, sizes


def ask(ends: Served, size: bytes) -> None:
    ends.caller.sendall(frame.pack_call(EMPTY._replace(payload_length=len(size))) + size)


def test_a_compiled_function_answers_one_call_after_the_other() -> None:
    with compiled() as (ends, sizes):
        with running(ends.server.next_call):
            ends.caller.settimeout(SOON)
            buffer = fresh()
            for size in (1, 32768, 7):
                ask(ends, b"%d" % size)
                answer, end = frame.receive_reply(ends.caller, buffer)
                assert (answer.status, answer.length) == (Status.OK, size)
                assert bytes(buffer[frame.HEADER : end]) == b"x" * size
            ends.caller.shutdown(socket.SHUT_WR)
        assert sizes == [1, 32768, 7]
        assert (ends.record.invocations, ends.record.in_flight) == (3, 0)


@pytest.mark.parametrize("size", [b"", b"32769"])
def test_what_a_compiled_function_leaves_the_handler_answers(size: bytes) -> None:
    """Also a reply for which there is no room: the handler finds words for that."""
    with compiled() as (ends, sizes):
        ask(ends, size)
        assert ends.server.next_call()
        assert ends.server.call()[0] == size
        ends.server.finish(*ends.server.stored(b"the handler's"))
        assert reply(ends).length == len(b"the handler's")
        assert sizes == [int(size or b"0")]
        assert (ends.record.invocations, ends.record.in_flight) == (1, 0)


def test_the_memory_of_a_caller_is_as_long_as_the_loop_takes_it() -> None:
    assert ctypes.sizeof(CallerMemory) == 2 * frame.BUFFER + 8 + 4 * 8 + 8 + 8 + 7 * 8 + 2 * 8
