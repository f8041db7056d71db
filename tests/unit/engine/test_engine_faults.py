"""What a fault in a step, in sampling, in a listener or in an observer ends, and what it does not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
import torch

from faasmoe.engine.engine import Engine
from faasmoe.engine.stats import StepStats
from faasmoe.errors import EngineStopped, RequestError
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams
from tests.unit.engine.conftest import drain, submit


def test_a_step_that_fails_has_cost_what_it_did_until_then(
    serving: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke = serving.platform.invoke_many
    monkeypatch.setattr(serving.platform, "invoke_many", lambda calls, *more: invoke(calls, *more) if "layer-00" in
                        calls[0].function else 1 / 0)  # fmt: skip
    _, last = drain(submit(serving, "a", [1, 2]))
    assert "an internal error" in (last.error or "")
    assert last.used is not None
    assert last.used.invocations == serving.platform.status().totals.invocations > 0


def test_a_failing_step_ends_its_requests_and_not_the_engine(serving: Runtime) -> None:
    names = [status.name for status in serving.platform.status().functions]
    specs = serving.platform.specs
    serving.platform.remove(names)
    _, last = drain(submit(serving, "a", [1, 2], max_tokens=4))
    assert last.error == f"function {names[0]} of the model could not be run; the server's log says why"
    serving.platform.deploy(specs)
    assert drain(submit(serving, "b", [1, 2], max_tokens=4))[1].finish_reason == "length"


def test_a_fault_in_sampling_ends_one_request(
    serving: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from faasmoe.engine.output.sampler import Sampler

    pick = Sampler.pick
    odd: list[Sampler] = []

    def fails_for_the_first(self: Sampler, *args: object) -> object:
        odd[:] = odd or [self]
        if self is odd[0]:
            raise ValueError("nothing to pick from")
        return pick(self, *args)

    monkeypatch.setattr(Sampler, "pick", fails_for_the_first)
    first = submit(serving, "a", [1, 2], max_tokens=4)
    second = submit(serving, "b", [3, 4], max_tokens=4)
    assert "an internal error" in (drain(first)[1].error or "")
    assert "nothing to pick from" not in (caplog.records[0].getMessage())
    assert drain(second)[1].finish_reason == "length"


def test_a_listener_that_fails_does_not_reach_others(serving: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    def deaf(piece: Piece) -> None:
        raise OSError("nobody listens")

    serving.engine.submit(GenerationRequest("a", (1, 2), SamplingParams(2, temperature=0)), deaf)
    assert drain(submit(serving, "b", [3, 4], max_tokens=4))[1].finish_reason == "length"
    assert "nobody listens" in caplog.text
    assert serving.engine.load() == (0, 0)


def test_an_engine_that_fails_says_so(
    serving: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise KeyError("plan")

    monkeypatch.setattr(serving.engine._scheduler, "next_step", broken)
    pieces = submit(serving, "a", [1, 2])
    assert drain(pieces)[1].error == "the orchestrator has failed; try again"
    assert not serving.engine.alive
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    with pytest.raises(EngineStopped):
        submit(serving, "b", [1, 2])


def test_a_request_that_was_cancelled_in_a_failing_step_fails_no_other_of_its_id(
    serving: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    forward = serving.model.forward

    def fails_once(*args: object) -> torch.Tensor:
        if not inside.is_set():
            inside.set()
            go_on.wait(60)
            raise RuntimeError("this step only")
        return forward(*args)

    monkeypatch.setattr(serving.model, "forward", fails_once)
    first = submit(serving, "a", [1, 2])
    assert inside.wait(60)
    with pytest.raises(RequestError, match="runs already"):
        submit(serving, "a", [1, 2])
    serving.engine.cancel("a")
    second = submit(serving, "a", [1, 2], max_tokens=4)
    go_on.set()
    assert drain(second)[1].finish_reason == "length"
    assert drain(first)[1].finish_reason == "cancelled"
    assert first.empty()


def test_a_failing_observer_is_no_requests_concern(
    engine_with: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(report: StepStats) -> None:
        raise ZeroDivisionError

    assert drain(submit(engine_with(broken), "a", [1], max_tokens=3))[1].finish_reason == "length"
    assert "could not be reported: ZeroDivisionError" in caplog.text
