from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from faasmoe.engine.engine import Engine
from faasmoe.engine.speculation.row_cost import RowCost
from faasmoe.engine.stats import StepStats
from faasmoe.errors import EngineBusy, EngineStopped, RequestError
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.protocol.request import Piece
from tests.unit.engine.conftest import drain, greedy, submit


def test_requests_together_give_what_each_gives_alone(serving: Runtime, tiny: tuple) -> None:
    prompts = [[5, 6, 7], list(range(40)), [99]]
    streams = [submit(serving, str(i), p, max_tokens=12) for i, p in enumerate(prompts)]
    for prompt, stream in zip(prompts, streams, strict=True):
        text, last = drain(stream)
        assert text == serving.tokenizer.decode(greedy(tiny[1], prompt, 12))
        assert (last.tokens, last.finish_reason) == (12, "length")


def test_what_does_not_fit_is_refused_before_anything_runs(serving: Runtime) -> None:
    with pytest.raises(
        RequestError, match="the maximum context length is 128 tokens; the prompt has 120"
    ) as caught:
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


@pytest.mark.parametrize(("latency", "least", "most"), [(1e-6, 1, 68), (60.0, 69, 300)])
def test_prompts_beside_a_response_take_as_much_of_a_step_as_it_tolerates(
    tiny: tuple, engine_with: Callable[..., Engine], latency: float, least: int, most: int
) -> None:
    reports: list[StepStats] = []
    engine = engine_with(reports.append, inter_token_latency=latency, speculation="off")
    drain(submit(engine, "first", list(range(90)), max_tokens=1))  # cold starts tell nothing
    talking = submit(engine, "talks", [5], max_tokens=100, ignore_eos=True)
    talking.get(timeout=60)
    prompts = [[20 + i, *range(99)] for i in range(4)]
    asking = [submit(engine, str(i), p, tenant=str(i), max_tokens=8) for i, p in enumerate(prompts)]
    for prompt, stream in zip(prompts, asking, strict=True):
        assert drain(stream)[0] == engine._tokenizer.decode(greedy(tiny[1], prompt, 8))
    beside = [report.prompt_tokens for report in reports if 0 < report.prompt_tokens < report.tokens]
    assert sum(beside) == 4 * 100
    assert least <= max(beside[1:]) <= most  # the last token of a prompt goes as a decode does
    drain(talking)


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


PHRASE = [104, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100, 33]
SAMPLED = {"temperature": 0.6, "seed": 3, "repetition_penalty": 0.2, "logprobs": 2, "top_p": 0.9}


@pytest.mark.parametrize("params", [{}, SAMPLED, {"logprobs": 1, "echo": True}])
@pytest.mark.parametrize("memory", [4000, 160])
def test_speculation_changes_nothing_but_the_number_of_steps(
    engine_with: Callable[..., Engine], params: dict[str, object], memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tiny model says repeats itself soon, and a penalty below 1 makes it repeat what was there."""
    monkeypatch.setattr(RowCost, "share", lambda *_: 0.1)  # whatever this machine takes
    prompts = [PHRASE * 3, [*PHRASE, 7, *PHRASE, 9], [5, 6, 7], [8] * 20]
    answers, steps, gauges = [], [], []
    for speculation in ("off", "ngram"):
        reports: list[StepStats] = []
        engine = engine_with(reports.append, kv_cache_bytes=memory * 4 * 512, speculation=speculation)
        streams = [
            submit(engine, str(i), p, max_tokens=60, ignore_eos=True, tenant=str(i % 2), **params)
            for i, p in enumerate(prompts)
        ]
        answers.append([whole(stream) for stream in streams])
        gauges.append(engine.gauges())
        steps.append(len(reports))
    assert answers[1] == answers[0]
    assert gauges[0]["speculation_proposed"] == 0
    assert 0 < gauges[1]["speculation_accepted"] <= gauges[1]["speculation_proposed"]
    assert steps[1] < steps[0]


def whole(pieces: queue.SimpleQueue[Piece]) -> tuple[str, list[object], int, str | None]:
    """Text, tokens' log-probabilities as far as threads and batches leave them the same, and how it ended."""
    text, scores = "", []
    while True:
        piece = pieces.get(timeout=60)
        text += piece.text
        scores += [(score.chosen.token, score.offset, pytest.approx(score.chosen.logprob, abs=1e-3))
                   for score in piece.logprobs]  # fmt: skip
        if piece.last:
            assert piece.error is None
            return text, scores, piece.tokens, piece.finish_reason


def iter_reports(reports: queue.SimpleQueue[StepStats]) -> Iterator[int]:
    while not reports.empty():
        report = reports.get()
        assert set(report.phases) == {"schedule", "forward", "account", "sample"}
        assert 0 < sum(report.phases.values()) <= report.seconds * 1.001
        assert (report.sequences, report.waiting) == (1, 0)
        assert report.tokens == (report.prompt_tokens or 1)
        yield report.prompt_tokens


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
