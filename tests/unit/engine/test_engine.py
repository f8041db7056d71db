from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from faasmoe.engine.engine import Engine
from faasmoe.engine.experts.costs import StepCosts
from faasmoe.engine.stats import StepStats
from faasmoe.errors import EngineBusy, EngineStopped, RequestError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.protocol.options import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    from faasmoe.model.synthesis.synthesis import _byte_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny("qwen2_moe", folder, vocab_size=257, eos_token_id=256)
    _byte_tokenizer().save_pretrained(folder)
    return folder, model


@pytest.fixture
def serving(tiny: tuple) -> Iterator[Runtime]:
    with Runtime(make_plan(resolve(str(tiny[0])), 4), InProcessPlatform, 128) as running:
        yield running


@pytest.fixture
def engine_with(serving: Runtime) -> Iterator[Callable[..., Engine]]:
    """Engines on the same model, with other options."""
    engines = []

    def start(
        observer: Callable[[StepStats], None] | None = None, costs: StepCosts | None = None, **options: int
    ) -> Engine:
        engines.append(
            Engine(
                serving.model,
                serving.tokenizer,
                end_tokens=serving.tokenizer.end_tokens,
                max_model_len=128,
                options=EngineOptions(**options),
                observer=observer,
                costs=costs,
            )
        )
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def submit(
    to: Runtime | Engine, name: str, prompt: list[int], *, tenant: str = "", **params: object
) -> queue.SimpleQueue[Piece]:
    """Greedy unless told otherwise: whatever is sampled may be the end token."""
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    engine = to.engine if isinstance(to, Runtime) else to
    sampling = SamplingParams(**{"temperature": 0, **params})
    engine.submit(GenerationRequest(name, tuple(prompt), sampling, tenant=tenant), pieces.put)
    return pieces


def drain(pieces: queue.SimpleQueue[Piece]) -> tuple[str, Piece]:
    text = ""
    while True:
        piece = pieces.get(timeout=60)
        text += piece.text
        if piece.last:
            return text, piece


def greedy(model: torch.nn.Module, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    for _ in range(count):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return ids[0, len(prompt) :].tolist()


def test_requests_together_give_what_each_gives_alone(serving: Runtime, tiny: tuple) -> None:
    prompts = [[5, 6, 7], list(range(40)), [99]]
    streams = [submit(serving, str(i), p, max_tokens=12) for i, p in enumerate(prompts)]
    for prompt, stream in zip(prompts, streams, strict=True):
        text, last = drain(stream)
        assert text == serving.tokenizer.decode(greedy(tiny[1], prompt, 12))
        assert (last.tokens, last.finish_reason) == (12, "length")


def test_what_does_not_fit_is_refused_before_anything_runs(serving: Runtime) -> None:
    with pytest.raises(RequestError, match="the context is 128 tokens; the prompt has 120") as caught:
        submit(serving, "a", [1] * 120, max_tokens=9)
    assert (caught.value.param, caught.value.code) == ("max_tokens", "context_length_exceeded")
    with pytest.raises(RequestError, match="empty"):
        submit(serving, "b", [])
    assert serving.engine.load() == (0, 0)


@pytest.mark.parametrize("token", [-1, 257, 2**70])
def test_tokens_that_the_model_does_not_know_are_refused_before_anything_runs(
    serving: Runtime, token: int
) -> None:
    with pytest.raises(RequestError, match=f"prompt has token {token}; this model takes token ids from 0 to 256"):
        submit(serving, "a", [1, token, 2])
    with pytest.raises(RequestError, match=f"logit_bias has token {token}") as caught:
        submit(serving, "b", [1], logit_bias=((token, 1.0),))
    assert caught.value.param == "logit_bias"
    assert serving.engine.load() == (0, 0)


def test_a_cancelled_request_frees_its_place(serving: Runtime) -> None:
    pieces = submit(serving, "a", [1, 2], max_tokens=100)
    pieces.get(timeout=60)
    serving.engine.cancel("a")
    serving.engine.cancel("a")
    assert serving.engine.load() == (0, 0)
    assert drain(pieces)[1].finish_reason == "cancelled"
    assert pieces.empty()


def test_what_requests_use_adds_up_to_what_the_platform_did(serving: Runtime) -> None:
    def start(name: str, tenant: str, **params: object) -> queue.SimpleQueue[Piece]:
        return submit(serving, name, [1, 2, ord(name)], tenant=tenant, **params)

    endless = start("c", "x", max_tokens=120)
    endless.get(timeout=60)
    pieces = [start("a", "x", max_tokens=9), start("b", "y", max_tokens=3)]
    ends = [drain(one)[1] for one in pieces]
    serving.engine.cancel("c")
    ends.append(drain(endless)[1])
    used = [piece.used for piece in ends if piece.used]
    totals = serving.platform.status().totals
    assert [piece.finish_reason for piece in ends] == ["length", "length", "cancelled"]
    assert 0 < sum(one.invocations for one in used) == pytest.approx(totals.invocations)
    assert sum(one.gb_seconds for one in used) == pytest.approx(totals.busy_gb_seconds)
    assert sum(one.cold_starts for one in used) == pytest.approx(totals.cold_starts)
    assert 0 < sum(one.expert_seconds for one in used) <= totals.busy_seconds
    assert all(one.orchestrator_cpu_seconds > 0 for one in used)
    busy = serving.engine.take_busy()
    assert busy["x"] + busy["y"] == pytest.approx(totals.busy_gb_seconds)
    assert busy["y"] == pytest.approx(used[1].gb_seconds)
    assert serving.engine.take_busy() == {}


def test_work_that_is_repeated_after_a_preemption_is_paid_for(
    serving: Runtime, engine_with: Callable[..., Engine]
) -> None:
    engine = engine_with(kv_cache_bytes=64 * 4 * 512, costs=serving.dispatch.costs)
    streams = [submit(engine, str(i), [5 + i, *range(20)], max_tokens=30) for i in range(4)]
    used = [last.used for _, last in map(drain, streams) if last.used]
    assert engine.gauges()["preemptions"] > 0
    assert sum(one.invocations for one in used) == pytest.approx(serving.platform.status().totals.invocations)


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

    serving.engine.submit(GenerationRequest("a", (1, 2), SamplingParams(temperature=0)), deaf)
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


def test_little_memory_changes_nothing_but_time(tiny: tuple, engine_with: Callable[..., Engine]) -> None:
    engine = engine_with(kv_cache_bytes=64 * 4 * 512)
    total = engine.gauges()["kv_cache_tokens"]
    prompts = [[5 + i, *range(20)] for i in range(4)]
    streams = [submit(engine, str(i), p, max_tokens=30, tenant=str(i % 2)) for i, p in enumerate(prompts)]
    for prompt, stream in zip(prompts, streams, strict=True):
        assert drain(stream)[0] == engine._tokenizer.decode(greedy(tiny[1], prompt, 30))
    assert total < 4 * 50
    assert engine.gauges()["preemptions"] > 0
    assert engine.gauges()["kv_cache_tokens_used"] <= total


def test_what_never_fits_in_memory_is_refused(engine_with: Callable[..., Engine]) -> None:
    engine = engine_with(kv_cache_bytes=32 * 4 * 512)
    total = int(engine.gauges()["kv_cache_tokens"])
    with pytest.raises(RequestError, match=f"KV cache holds {total} tokens") as caught:
        submit(engine, "a", [1] * 10, max_tokens=total)
    assert caught.value.param == "max_tokens"


def test_too_many_that_wait_are_sent_away(
    serving: Runtime, engine_with: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    forward = serving.model.forward

    def slow(*args: object) -> torch.Tensor:
        inside.set()
        go_on.wait(60)
        return forward(*args)

    monkeypatch.setattr(serving.model, "forward", slow)
    engine = engine_with(max_sequences=1, max_waiting=1)
    streams = [submit(engine, "0", [1])]
    assert inside.wait(60)
    streams.append(submit(engine, "1", [1]))
    with pytest.raises(EngineBusy) as caught:
        submit(engine, "2", [1])
    assert caught.value.retry_after == 1
    streams.append(submit(engine, "3", [1], tenant="another"))
    go_on.set()
    assert [drain(stream)[1].error for stream in streams] == [None] * 3


def test_a_conversation_computes_what_is_new(tiny: tuple, engine_with: Callable[..., Engine]) -> None:
    reports: queue.SimpleQueue[StepStats] = queue.SimpleQueue()
    engine = engine_with(reports.put)
    prompt = list(range(40))
    drain(submit(engine, "a", prompt, max_tokens=4))
    longer = [*prompt, *greedy(tiny[1], prompt, 4), 7, 8]
    answers = [
        drain(submit(engine, f"b{tenant}{i}", longer, max_tokens=5, tenant=tenant))[0]
        for i, tenant in enumerate(["", "other", ""])
    ]
    assert answers == [engine._tokenizer.decode(greedy(tiny[1], longer, 5))] * 3
    engine.close()
    prompts = [size for size in iter_reports(reports) if size]
    assert prompts == [40, 46 - 43, 46, 1]


def iter_reports(reports: queue.SimpleQueue[StepStats]) -> Iterator[int]:
    while not reports.empty():
        report = reports.get()
        assert set(report.phases) == {"schedule", "forward", "account", "sample"}
        assert 0 < sum(report.phases.values()) <= report.seconds * 1.001
        assert (report.sequences, report.waiting) == (1, 0)
        assert report.tokens == (report.prompt_tokens or 1)
        yield report.prompt_tokens


def test_a_failing_observer_is_no_requests_concern(
    engine_with: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(report: StepStats) -> None:
        raise ZeroDivisionError

    assert drain(submit(engine_with(broken), "a", [1], max_tokens=3))[1].finish_reason == "length"
    assert "could not be reported: ZeroDivisionError" in caplog.text


def test_closing_ends_what_runs(serving: Runtime) -> None:
    pieces = submit(serving, "a", [1, 2], max_tokens=120)
    serving.engine.close()
    assert drain(pieces)[1].error == "the orchestrator is shutting down"
    assert not serving.engine.alive
    with pytest.raises(EngineStopped):
        submit(serving, "b", [1])


def test_the_end_token_ends_without_showing(serving: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = serving.model.forward

    def ends_soon(tokens: list[int], positions: list[int], spans: list, wanted: list[int]) -> torch.Tensor:
        logits = forward(tokens, positions, spans, wanted).clone()
        if positions[-1] >= 4:
            logits[:, 256] = 1e9
        return logits

    monkeypatch.setattr(serving.model, "forward", ends_soon)
    text, last = drain(submit(serving, "a", [65, 66], max_tokens=50))
    assert (last.finish_reason, last.tokens) == ("stop", 4)
    assert "endoftext" not in text
