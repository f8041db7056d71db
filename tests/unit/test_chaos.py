"""What judges a campaign finds what is wrong, and only that."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from tests.chaos.clients import Attempt
from tests.chaos.faults import Event, Fault, Kind
from tests.chaos.ledger import Row, differences
from tests.chaos.plan import covering, drawn
from tests.chaos.questions import QUESTIONS, Answer
from tests.chaos.tree import CHILDREN
from tests.chaos.verdict import LOG_BYTES, Batch, Facts, table
from tests.chaos.watch import Gauge, Look, most_logged

QUESTION = QUESTIONS[0]
RIGHT = {
    QUESTION.name: Answer(
        id="right", texts={0: "a wolf"}, ends={0: "length"}, prompt_tokens=7, completion_tokens=6, done=True
    )
}


def whole(number: int = 0, **changes: Any) -> Answer:
    return replace(
        Answer(
            id=f"r{number}",
            texts={0: "a wolf"},
            ends={0: "length"},
            prompt_tokens=7,
            completion_tokens=6,
            done=True,
            status=200,
        ),
        **changes,
    )


def part(number: int = 0, **changes: Any) -> Answer:
    return replace(Answer(id=f"r{number}", texts={0: "a w"}, status=200), **changes)


def attempt(answer: Answer, begun: float = 10.0, ended: float | None = 11.0, **others: Any) -> Attempt:
    return Attempt(
        tenant="ann", question=QUESTION, stream=True, most=0, begun=begun, ended=ended, answer=answer, **others
    )


def facts(*attempts: Attempt, events: Sequence[Event] = (), **others: Any) -> Facts:
    empty: dict[str, Any] = {
        "batches": [],
        "looks": [],
        "growth": [],
        "ends": [(3.0, 10.0)],
        "remains": [],
        "ledger": [],
        "rows": 0,
        "heeded_term": [],
        "hostile": {},
        "zero": 10.0,
    }
    return Facts(attempts=attempts, right=RIGHT, events=events, **{**empty, **others}, limit=10.0)


def failed(found: Facts) -> list[str]:
    checks = found.checks()
    assert all(len(line) <= 80 for line in table(checks).splitlines() if not line.startswith("  "))
    return [check.name for check in checks if not check.ok]


def test_right_answers_and_clean_errors_pass() -> None:
    assert (
        failed(facts(attempt(whole()), attempt(part(1, error="lost")), attempt(Answer(error="busy", status=429))))
        == []
    )


@pytest.mark.parametrize(
    "answer",
    [
        whole(texts={0: "a cat"}),
        whole(ends={0: "stop"}),
        whole(completion_tokens=5),
        part(texts={0: "a c"}, error="x"),
    ],
)
def test_other_text_tokens_or_ends_are_wrong(answer: Answer) -> None:
    assert failed(facts(attempt(answer))) == ["wrong answers"]


def test_what_no_server_may_send_is_wrong() -> None:
    assert failed(facts(attempt(whole(), defect="a stream ended twice"))) == ["wrong answers"]


def test_a_request_without_an_end_is_lost() -> None:
    assert failed(facts(attempt(part(), ended=None))) == ["lost requests"]
    broken = attempt(part(broken="ReadError"))
    assert failed(facts(broken)) == ["lost requests"]
    assert failed(facts(broken, events=[Event(1, Fault("kill", "gateway"), 10.5)])) == []


def test_an_id_that_comes_twice_is_doubled() -> None:
    assert failed(facts(attempt(whole()), attempt(whole()))) == ["doubled answers"]


def test_a_failure_counts_from_the_last_sign_of_life_or_fault() -> None:
    late = attempt(part(error="503"), begun=10.0, ended=30.0)
    assert failed(facts(late)) == ["longest hang of a failure"]
    assert failed(facts(replace(late, progressed=21.0))) == []
    assert failed(facts(late, events=[Event(1, Fault("kill", "daemon"), 21.0)])) == []
    assert failed(facts(late, events=[Event(1, Fault("freeze"), 11.0, until=25.0)])) == []
    for event in (Event(1, Fault("kill", "daemon"), 31.0), Event(1, Fault("replaced"), 29.0, until=35.0)):
        assert failed(facts(late, events=[event])) == ["longest hang of a failure"]


def test_a_late_next_answer_is_told_with_its_faults() -> None:
    events = [Event(1, Fault("stop", "daemon"), 10.0)]
    batch = Batch(number=1, begun=10.0, last=10.0, recovered=3.0, over=13.0, unseen=False)
    assert failed(facts(events=events, batches=[batch])) == []
    for recovered in (11.0, None):
        found = facts(events=events, batches=[replace(batch, recovered=recovered)])
        assert failed(found) == ["next answer after faults"]
        assert "stop daemon" in table(found.checks())


def test_nothing_may_fail_because_an_instance_was_killed() -> None:
    batch = Batch(number=1, begun=10.0, last=10.0, recovered=1.0, over=12.0, unseen=True)
    lost = attempt(part(error="503"), begun=9.5)
    assert failed(facts(lost, batches=[batch])) == ["failed by a function's death"]
    assert failed(facts(lost, batches=[replace(batch, unseen=False)])) == []
    earlier = Batch(number=0, begun=5.0, last=5.0, recovered=4.0, over=9.8, unseen=False)
    assert failed(facts(lost, batches=[earlier, batch])) == []


@pytest.mark.parametrize(("health", "lies"), [("ok", True), ("starting", False), ("", False)])
def test_health_may_not_be_ok_while_all_requests_fail(health: str, lies: bool) -> None:
    down = [attempt(Answer(error="503", status=503), begun=t, ended=t + 0.1) for t in range(10, 30)]
    looks = [Look(10 + i / 2, health, 0) for i in range(40)]
    assert failed(facts(*down, looks=looks)) == (["/health says ok in an outage"] if lies else [])
    between = attempt(whole(), begun=15.0, ended=15.5)
    after = attempt(whole(1), begun=20.0, ended=20.5)
    last = attempt(whole(2), begun=25.0, ended=25.5)
    assert failed(facts(*down, between, after, last, looks=looks)) == []


def test_health_may_not_be_ok_while_nothing_is_answered_for_long() -> None:
    hung = [attempt(whole(1), begun=10.0, ended=11.0), attempt(whole(2), begun=12.0, ended=35.0)]
    looks = [Look(10 + i / 2, "ok", 0) for i in range(50)]
    assert failed(facts(*hung, looks=looks)) == ["/health says ok in an outage"]
    assert failed(facts(*hung, looks=[look for look in looks if look.at < 21])) == []
    for frozen in (Fault("freeze"), Fault("pause", "gateway")):
        assert failed(facts(*hung, looks=looks, events=[Event(1, frozen, 12.0, until=26.0)])) == []
        early = [Event(1, frozen, 11.5, until=14.0)]
        assert failed(facts(*hung, looks=looks, events=early)) == ["/health says ok in an outage"]
    daemon = [Event(1, Fault("pause", "daemon"), 12.0, until=26.0)]
    assert failed(facts(*hung, looks=looks, events=daemon)) == ["/health says ok in an outage"]


def test_the_worst_minute_of_the_log_counts() -> None:
    steady = [Look(float(t), "ok", t * LOG_BYTES // 100) for t in range(600)]
    assert most_logged(steady) == 60 * LOG_BYTES // 100
    burst = [*steady, Look(600.0, "ok", 8 * LOG_BYTES)]
    assert failed(facts(looks=burst)) == ["log in the worst minute"]


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ({"growth": [(Gauge(50, 9, 1 << 20), Gauge(91, 9, 1 << 20))]}, "growth of gateway and daemon"),
        ({"ends": [(11.0, 10.0)]}, "end after SIGTERM"),
        ({"remains": ["process 7"]}, "left behind"),
        ({"heeded_term": ["daemon"]}, "children ended by SIGTERM"),
        ({"hostile": {400: 3, 500: 1}}, "hostile bodies answered 500"),
        ({"ledger": ["r0: answered and not in the ledger"]}, "ledger against clients"),
    ],
)
def test_everything_else_is_judged(others: dict[str, Any], name: str) -> None:
    assert failed(facts(**others)) == [name]


def row(
    number: int = 0, outcome: str = "length", prompt: int = 7, completion: int = 6, tenant: str = "ann"
) -> Row:
    return Row(f"r{number}", tenant, outcome, prompt, completion)


@pytest.mark.parametrize(
    ("rows", "attempts", "count"),
    [
        ([row()], [attempt(whole())], 0),
        ([], [attempt(whole())], 1),
        ([row(completion=5)], [attempt(whole())], 1),
        ([row(outcome="error")], [attempt(whole())], 1),
        ([row(tenant="ben")], [attempt(whole())], 1),
        ([], [attempt(part(error="lost"))], 0),
        ([row(outcome="error", completion=2)], [attempt(part(error="lost"))], 0),
        ([row(outcome="cancelled", completion=7)], [attempt(part())], 1),
        ([row(1)], [attempt(Answer(error="503", status=503))], 0),
        ([row(1), row(2)], [attempt(Answer(error="503", status=503))], 2),
        ([row(1)], [], 2),
    ],
)
def test_the_ledger_has_what_clients_were_answered_once(
    rows: list[Row], attempts: list[Attempt], count: int
) -> None:
    assert len(differences(rows, attempts, RIGHT)) == count


def test_the_short_plan_kills_and_stops_every_kind_of_process() -> None:
    made = {(fault.kind, fault.role) for batch in covering() for fault in batch}
    assert {(kind, role) for kind in ("kill", "stop") for role in CHILDREN} <= made
    kinds: set[Kind] = {fault.kind for batch in covering() for fault in batch}
    assert {"term", "forks", "descriptors", "disk", "freeze"} <= kinds


def test_a_seed_draws_the_same_faults() -> None:
    first, again, other = (list(islice(drawn(random.Random(seed)), 200)) for seed in ("1", "1", "2"))
    assert first == again != other
    made = {(fault.kind, fault.role) for batch in first for fault in batch}
    assert {(kind, role) for kind in ("kill", "stop") for role in CHILDREN} <= made
    assert all(len(batch) == 1 for batch in first if any(fault.gone for fault in batch))
