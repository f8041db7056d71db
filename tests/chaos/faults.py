"""What is done to a server: one fault is a kind, and for some kinds the processes that it is done to."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Literal

import httpx

from tests.chaos.cages import ProcessLimit, SmallDisk, Unavailable, few_descriptors
from tests.chaos.questions import MODEL
from tests.chaos.served import START_SECONDS, Served
from tests.chaos.tree import Process, Role
from tests.hostile import hostile_bodies
from tests.waiting import wait_until

Kind = Literal[
    "kill",
    "stop",
    "pause",
    "term",
    "freeze",
    "storm",
    "forks",
    "descriptors",
    "disk",
    "hostile",
    "end",
    "replaced",
]
KILLED_UNSEEN: frozenset[Role] = frozenset({"instance", "worker", "zygote", "daemon"})  # no request may fail of it
STORM_RATE = 20  # kills a second
_HEED_SECONDS = 1.0  # that a signal may take to have an effect
_HOSTILE_SECONDS = 10.0  # that a hostile client waits for an answer


@dataclass(frozen=True)
class Fault:
    """`role` is what a signal is for, or whose descriptors run out. `seconds` is how long it lasts, if it ends.

    It is done to one process, or to `all` of the role.
    """

    kind: Kind
    role: Role | None = None
    seconds: float = 0.0
    all: bool = False

    @property
    def name(self) -> str:
        whom = "" if self.role is None else f" {self.role}"
        return f"{self.kind}{' all' if self.all else ''}{whom}"

    @property
    def gone(self) -> bool:
        """Whether no server is left after it."""
        return self.kind in ("end", "replaced") or (self.kind == "kill" and self.role == "gateway")

    @property
    def silences(self) -> bool:
        """Whether the gateway can say nothing for as long as it lasts."""
        return self.name in ("freeze", "pause gateway")

    @property
    def unseen(self) -> bool:
        """Whether no request may fail of it, however short."""
        return self.kind in ("storm", "term") or (self.kind == "kill" and self.role in KILLED_UNSEEN)


@dataclass
class Event:
    """A fault that was made. Times are of the monotonic clock."""

    batch: int
    fault: Fault
    begun: float
    pids: list[int] = field(default_factory=list)
    until: float | None = None  # None: it does not end by itself

    def last(self) -> float:
        """When the server was last disturbed by it."""
        return self.begun if self.until is None else self.until


@dataclass(kw_only=True)
class Scene:
    """What faults are made on. `skipped` names kinds that cannot be made here, and why."""

    served: Served
    choice: random.Random
    limit: ProcessLimit | None = None
    disk: SmallDisk | None = None
    hostile_key: str = ""
    events: list[Event] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    heeded_term: list[str] = field(default_factory=list)  # children that ended of SIGTERM
    hostile: dict[int, int] = field(default_factory=dict)  # status to number of answers; 0: none came

    def make(self, batch: int, faults: Sequence[Fault]) -> None:
        """All of them, a moment apart, each for its time; those that end, in random order."""
        with ExitStack() as stack:
            ends: list[tuple[float, Callable[[], None]]] = []
            for fault in faults:
                event = Event(batch, fault, time.monotonic())
                end = self._begin(event, stack)
                self.events.append(event)
                if end is not None:
                    ends.append((event.begun + fault.seconds, self._ending(event, end)))
                time.sleep(self.choice.uniform(0.0, 0.3))
            for at, end_it in sorted(ends, key=lambda item: item[0]):
                time.sleep(max(0.0, at - time.monotonic()))
                end_it()

    @staticmethod
    def _ending(event: Event, end: Callable[[], None]) -> Callable[[], None]:
        def ending() -> None:
            end()
            event.until = time.monotonic()

        return ending

    def _begin(self, event: Event, stack: ExitStack) -> Callable[[], None] | None:
        """Returns what ends it."""
        match event.fault.kind:
            case "kill" | "stop" | "pause" | "term":
                return self._signal(event)
            case "freeze":
                return self._freeze(event)
            case "storm":
                self._storm(event)
                return None
            case "hostile":
                return self._hostile(event)
            case "end" | "replaced":
                return None  # the campaign's own doing: another server follows
        held = stack.enter_context(ExitStack())
        try:
            match event.fault.kind:
                case "forks":
                    held.enter_context(self._limit().full())
                case "disk":
                    held.enter_context(self._disk().full())
                case "descriptors":
                    for process in self._some(event, event.fault.role or "gateway"):
                        held.enter_context(few_descriptors(process.pid, self.choice.choice((0, 0, 2))))
        except Unavailable as error:
            self.skipped[event.fault.kind] = str(error)
        return held.close

    def _signal(self, event: Event) -> Callable[[], None] | None:
        fault = event.fault
        numbers = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
        number = numbers.get(fault.kind, signal.SIGSTOP)
        everybody = fault.kind == "term" and fault.role is None
        chosen = self._children() if everybody else self._some(event, fault.role or "instance")
        self.choice.shuffle(chosen)
        event.pids = [process.pid for process in chosen if _send(process, number)]
        if fault.kind == "term":
            wait_until(lambda: not all(process.lives() for process in chosen), _HEED_SECONDS)
            self.heeded_term += [process.role for process in chosen if not process.lives()]
        if fault.kind != "pause":
            return None
        return lambda: _send_all(chosen, signal.SIGCONT)

    def _freeze(self, event: Event) -> Callable[[], None]:
        everybody = self.served.tree.now()
        self.choice.shuffle(everybody)
        event.pids = [process.pid for process in everybody if _send(process, signal.SIGSTOP)]
        self.choice.shuffle(everybody)
        return lambda: _send_all(everybody, signal.SIGCONT)

    def _storm(self, event: Event) -> None:
        end = event.begun + event.fault.seconds
        while (now := time.monotonic()) < end:
            instances = self.served.tree.of("instance")
            for process in self.choice.sample(instances, min(1, len(instances))):
                if _send(process, signal.SIGKILL):
                    event.pids.append(process.pid)
            time.sleep(max(0.0, now + 1 / STORM_RATE - time.monotonic()))
        event.until = time.monotonic()

    def _hostile(self, event: Event) -> Callable[[], None]:
        over, bodies = threading.Event(), list(hostile_bodies(MODEL).values())

        def attack() -> None:
            with httpx.Client(timeout=_HOSTILE_SECONDS, trust_env=False) as client:
                while not over.is_set():
                    path, body = self.choice.choice(bodies)
                    head = {"Authorization": f"Bearer {self.hostile_key}", "Content-Type": "application/json"}
                    status = 0
                    with suppress(httpx.HTTPError):
                        status = client.post(
                            f"{self.served.url}/v1/{path}", content=body, headers=head
                        ).status_code
                    self.hostile[status] = self.hostile.get(status, 0) + 1

        thread = threading.Thread(target=attack, daemon=True)
        thread.start()

        def end() -> None:
            over.set()
            thread.join(2 * _HOSTILE_SECONDS)

        return end

    def _some(self, event: Event, role: Role) -> list[Process]:
        """Those that a fault is for. Waits for one as long as a server may take to start; there may be no such role."""
        found = self._seen(role)
        event.begun = time.monotonic()  # not when the wait for it began
        if not found:
            self.skipped[event.fault.name] = f"no {role} ran at that time"
        return found if event.fault.all else self.choice.sample(found, min(1, len(found)))

    def _seen(self, role: Role) -> list[Process]:
        """What one look has found: a worker that was there a moment ago may be an instance by the next look."""
        found: list[Process] = []

        def look() -> bool:
            found[:] = self.served.tree.of(role)
            return bool(found) or self.served.process.poll() is not None

        wait_until(look, START_SECONDS)
        return found

    def _children(self) -> list[Process]:
        return [process for process in self.served.tree.now() if process.role != "gateway"]

    def _limit(self) -> ProcessLimit:
        if self.limit is None:
            raise Unavailable(self.skipped.get("forks", "there is no control group"))
        return self.limit

    def _disk(self) -> SmallDisk:
        if self.disk is None:
            raise Unavailable(self.skipped.get("disk", "there is no small disk"))
        return self.disk


def _send(process: Process, number: signal.Signals) -> bool:
    """Whether it was there. The process id cannot be another's yet: who holds it was just seen."""
    if not process.lives():
        return False
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
        return True
    return False


def _send_all(processes: Sequence[Process], number: signal.Signals) -> None:
    for process in processes:
        _send(process, number)


def timeline(events: Sequence[Event], zero: float) -> str:
    """As JSON: seconds since `zero`."""
    return json.dumps(
        [
            {
                "batch": event.batch,
                "fault": event.fault.name,
                "begun": round(event.begun - zero, 3),
                "until": None if event.until is None else round(event.until - zero, 3),
                "pids": event.pids,
            }
            for event in events
        ],
        indent=1,
    )
