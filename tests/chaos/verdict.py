"""What a campaign has shown: checks, each with what was found and what is allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.chaos.clients import Attempt
from tests.chaos.faults import Event
from tests.chaos.questions import Answer
from tests.chaos.watch import OK, Gauge, Look, most_logged

FEW_SECONDS = 5.0  # that requests may fail before /health has to say so
LOG_BYTES = 5_000_000  # a minute
MORE = Gauge(descriptors=40, threads=20, memory=64 << 20)  # that a gateway may take at its end than at its begin
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Faults that were made together, and how the server came out of them."""

    number: int
    begun: float
    last: float  # when the server was last disturbed
    recovered: float | None  # seconds from then until every tenant had an answer; None: it had to be replaced
    over: float
    unseen: bool  # no request may fail of it


@dataclass
class Check:
    """One property. `details` are examples of what is wrong."""

    name: str
    found: str
    allowed: str
    details: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.details


@dataclass(kw_only=True)
class Facts:
    """All that is judged."""

    attempts: Sequence[Attempt]
    right: dict[str, Answer]
    events: Sequence[Event]
    batches: Sequence[Batch]
    looks: Sequence[Look]
    growth: Sequence[tuple[Gauge, Gauge]]  # of each gateway: at its begin, and last seen
    ends: Sequence[tuple[float, float]]  # seconds from SIGTERM to the end, and allowed
    remains: Sequence[str]
    ledger: Sequence[str]  # differences
    rows: int  # in it
    heeded_term: Sequence[str]
    hostile: dict[int, int]
    limit: float  # seconds
    zero: float = 0.0  # when it began

    def checks(self) -> list[Check]:
        """In the order of the table."""
        return [
            self._wrong(),
            self._lost(),
            self._doubled(),
            self._ledger(),
            self._hangs(),
            self._recoveries(),
            self._unseen(),
            self._term(),
            self._hostile(),
            self._health(),
            self._log(),
            self._growth(),
            self._ends(),
            self._remains(),
        ]

    def _wrong(self) -> Check:
        """A whole answer that is another one, or a part that is no beginning of the right one."""
        wrong = [
            attempt
            for attempt in self.attempts
            if attempt.defect
            or (attempt.answer.done and not attempt.answer.same_as(self.right[attempt.question.name]))
            or not attempt.answer.begins(self.right[attempt.question.name])
        ]
        return Check("wrong answers", f"{len(wrong)}", "0", [self._told(attempt) for attempt in wrong])

    def _lost(self) -> Check:
        """No answer and no clean error, though the gateway was there all the time."""
        gone = [event for event in self.events if event.fault.gone]
        lost = [
            attempt
            for attempt in self.attempts
            if attempt.ended is None
            or (
                attempt.answer.broken
                and not any(attempt.begun - 1 <= event.last() and event.begun <= attempt.ended for event in gone)
                and not self._without_descriptors(attempt)
            )
        ]
        return Check("lost requests", f"{len(lost)}", "0", [self._told(attempt) for attempt in lost])

    def _without_descriptors(self, attempt: Attempt) -> bool:
        """Whether a connection could not be taken: who cannot open one can tell nobody."""
        return any(
            (event.fault.kind, event.fault.role) == ("descriptors", "gateway")
            and attempt.begun <= event.last() + 1
            and event.begun <= attempt.begun
            for event in self.events
        )

    def _doubled(self) -> Check:
        ids = Counter(attempt.answer.id for attempt in self.attempts if attempt.answer.id)
        doubled = [f"{name} came {count} times" for name, count in ids.items() if count > 1]
        return Check("doubled answers", f"{len(doubled)}", "0", doubled)

    def _ledger(self) -> Check:
        return Check("ledger against clients", f"{len(self.ledger)} of {self.rows} rows", "0", list(self.ledger))

    def _hangs(self) -> Check:
        """Failing is allowed. Failing after a long silence is not."""
        hung = {
            id(attempt): self._silence(attempt) for attempt in self.attempts if attempt.failed and attempt.ended
        }
        over = [attempt for attempt in self.attempts if hung.get(id(attempt), 0.0) > self.limit]
        details = [f"{hung[id(attempt)]:.1f} s: {self._told(attempt)}" for attempt in over]
        return Check(
            "longest hang of a failure", f"{max(hung.values(), default=0):.1f} s", f"{self.limit:.0f} s", details
        )

    def _silence(self, attempt: Attempt) -> float:
        """Seconds from its begin, its last event or the last fault before its end to its end."""
        end = attempt.ended or 0.0
        faults = [
            at
            for event in self.events
            if event.fault.kind != "replaced"  # which is how we end a hang, no cause of one
            for at in (event.begun, event.until or 0.0)
            if at <= end
        ]
        return end - max(attempt.begun, attempt.progressed, *faults, 0.0)

    def _recoveries(self) -> Check:
        times = [batch.recovered for batch in self.batches if batch.recovered is not None]
        dead = [batch for batch in self.batches if batch.recovered is None]
        late = [batch for batch in self.batches if batch.recovered is None or batch.recovered > self.limit]
        found = f"p50 {median(times):.1f} s, max {max(times):.1f} s" if times else "none"
        details = [
            f"batch {batch.number} ({self._names(batch)}) at {batch.begun - self.zero:.0f} s: "
            + (f"{batch.recovered:.1f} s" if batch.recovered is not None else "dead, replaced by another")
            for batch in late
        ]
        return Check(
            "next answer after faults",
            found + (f", {len(dead)} dead" if dead else ""),
            f"{self.limit:.0f} s",
            details,
        )

    def _unseen(self) -> Check:
        """Functions' processes may be killed: calls are made again."""
        failed = []
        for attempt in self.attempts:
            during = self._batches(attempt) if attempt.failed else []
            if during and all(batch.unseen for batch in during):
                failed.append(f"{self._names(during[0])}: {self._told(attempt)}")
        return Check("failed by a function's death", f"{len(failed)}", "0", failed)

    def _batches(self, attempt: Attempt) -> list[Batch]:
        """Those during which it ran."""
        end = attempt.ended or attempt.begun
        return [batch for batch in self.batches if attempt.begun <= batch.over and batch.begun <= end]

    def _term(self) -> Check:
        roles = Counter(self.heeded_term)
        return Check(
            "children ended by SIGTERM", f"{len(self.heeded_term)}", "0", [f"{n} {r}" for r, n in roles.items()]
        )

    def _hostile(self) -> Check:
        bad = [f"{count} answers with status {status}" for status, count in self.hostile.items() if status == 500]
        return Check(
            "hostile bodies answered 500", f"{self.hostile.get(500, 0)} of {sum(self.hostile.values())}", "0", bad
        )

    def _health(self) -> Check:
        """It may be ok for a few seconds of nothing but failures, and for as long as a hang may last."""
        lies = [lie for begin, end in self._outages() if (lie := self._lie(begin, end))]
        seconds = sum(end - begin for begin, end in lies)
        details = [f"from {begin - self.zero:.1f} s to {end - self.zero:.1f} s" for begin, end in lies]
        return Check("/health says ok in an outage", f"{seconds:.1f} s", "0 s", details)

    def _outages(self) -> list[tuple[float, float]]:
        """From when /health may not say ok any more until there was an answer, or the last failure.

        While the gateway itself was frozen there was nobody who could have known: waiting counts from the thaw.
        """
        found: list[tuple[float, float]] = []
        failures: list[float] = []
        answered = self.zero
        ended = sorted(((a.ended, a) for a in self.attempts if a.ended), key=lambda item: item[0])
        for at, attempt in ended:
            if attempt.failed:
                failures.append(at)
            elif attempt.answer.done:
                failing = [(failures[0] + FEW_SECONDS, failures[-1])] if failures else []
                waiting = max([answered, *(thaw for thaw in self._thaws() if thaw <= at)])
                begin, end = min([*failing, (waiting + self.limit, at)])
                found += [(begin, end)] if end > begin else []
                failures, answered = [], at
        if failures:
            found.append((failures[0] + FEW_SECONDS, failures[-1]))
        return found

    def _thaws(self) -> list[float]:
        """When the gateway went on after it had been frozen."""
        return [event.until for event in self.events if event.fault.silences and event.until is not None]

    def _lie(self, begin: float, end: float) -> tuple[float, float] | None:
        """First and last time that it said ok then, if it was more than once or twice."""
        said = [look.at for look in self.looks if begin < look.at < end and look.health == OK]
        return (said[0], said[-1]) if len(said) > 2 else None

    def _log(self) -> Check:
        most = most_logged(list(self.looks))
        details = [f"{most} bytes in a minute"] if most > LOG_BYTES else []
        return Check("log in the worst minute", f"{most / 1e6:.2f} MB", f"{LOG_BYTES / 1e6:.0f} MB", details)

    def _growth(self) -> Check:
        worst = [max((last[i] - first[i] for first, last in self.growth), default=0) for i in range(3)]
        names = Gauge._fields
        details = [
            f"{names[i]} from {first[i]} to {last[i]}"
            for first, last in self.growth
            for i in range(3)
            if last[i] - first[i] > MORE[i]
        ]
        found = f"{worst[0]} fds, {worst[1]} threads, {worst[2] / 1e6:.0f} MB"
        return Check("growth of gateway and daemon", found, "40, 20, 67 MB", details)

    def _ends(self) -> Check:
        late = [f"{took:.1f} s" for took, allowed in self.ends if took > allowed]
        allowed = max((allowed for _, allowed in self.ends), default=0.0)
        return Check(
            "end after SIGTERM",
            f"{max((took for took, _ in self.ends), default=0):.1f} s",
            f"{allowed:.0f} s",
            late,
        )

    def _remains(self) -> Check:
        return Check("left behind", f"{len(self.remains)}", "0", list(self.remains))

    def _names(self, batch: Batch) -> str:
        return ", ".join(event.fault.name for event in self.events if event.batch == batch.number)

    def _told(self, attempt: Attempt) -> str:
        answer = attempt.answer
        took = "no end" if attempt.ended is None else f"{attempt.ended - attempt.begun:.1f} s"
        why = attempt.defect or answer.error or answer.broken or f"{answer.texts}"
        return (
            f"{attempt.tenant} {attempt.question.name} at {attempt.begun - self.zero:.1f} s, {took}: {why[:100]}"
        )


def table(checks: Sequence[Check]) -> str:
    """For people, 80 columns wide."""
    lines = [f"{'check':<30}{'found':<29}{'allowed':<14}".rstrip()]
    for check in checks:
        lines.append(f"{check.name:<30}{check.found:<29}{check.allowed:<14}{'ok' if check.ok else 'FAILED'}")
        lines += [f"  {detail}" for detail in check.details[:_SHOWN]]
        if len(check.details) > _SHOWN:
            lines.append(f"  and {len(check.details) - _SHOWN} more")
    return "\n".join(lines)
