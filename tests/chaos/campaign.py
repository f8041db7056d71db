"""One campaign: a server, its clients, and faults batch by batch."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.keys import create_key
from faasmoe.tenancy.tenants import Tenant, add_tenant
from tests.chaos import ledger
from tests.chaos.cages import ProcessLimit, SmallDisk, Unavailable
from tests.chaos.clients import Book, Clients, record, recovery
from tests.chaos.faults import Event, Fault, Scene
from tests.chaos.served import KEEP_ALIVE, Served, allowed_end
from tests.chaos.verdict import Batch, Facts
from tests.chaos.watch import Gauge, Watch

TENANTS = (Tenant("ann", weight=3.0), Tenant("ben"), Tenant("cid"))
HOSTILE = Tenant("mal", rpm=60, tpm=2000)
# Quickest starts of a server that an answer may take at most, where that is longer than the limit.
SLOW_STARTS = 2.5
_PATIENCE = 45.0  # least seconds after which a server that gives no answers is replaced
_CAUGHT_UP = 70.0  # seconds that records may be held up by a disk that was full
_REST_SHARE = 0.2  # of batches, after which everything idles


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a campaign is."""

    seed: int = 1
    strategy: str = "shared"
    limit: float = 10.0  # seconds: for hangs and for the next answer
    seconds: float | None = None  # None: until the plan ends
    clients: int = 2  # of each tenant
    memory_budget: str | None = None  # of the server
    quiet: float = 1.0  # most seconds between batches


@dataclass(kw_only=True)
class Campaign:
    """Runs `plan`. What is said of it is in `facts`."""

    settings: Settings
    plan: Iterable[Iterable[Fault]]
    book: Book = field(default_factory=Book)
    batches: list[Batch] = field(default_factory=list)
    growth: list[list[Gauge]] = field(default_factory=list)
    ends: list[tuple[float, float]] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)

    def run(self) -> Facts:
        """Everything. The server is gone after it."""
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
            self._choice = random.Random(self.settings.seed)
            skipped: dict[str, str] = {}
            limit, disk = self._cages(stack, skipped)
            self._database = f"sqlite:///{self._folder}/data/tenants.db"
            self._keys = self._tenants()
            self._limit_group = limit
            served = self._start()
            self.scene = Scene(
                served=served,
                choice=self._choice,
                limit=limit,
                disk=disk,
                hostile_key=self._keys.pop(HOSTILE.name),
                skipped=skipped,
            )
            stack.callback(self._kill)
            record(self.book, served.url, self._keys)
            self._live(served)
            if limit is not None:
                self.remains += [f"control group {path}" for path in limit.groups()]
            return self._facts()

    def _kill(self) -> None:
        self.scene.served.kill()

    def _cages(self, stack: ExitStack, skipped: dict[str, str]) -> tuple[ProcessLimit | None, SmallDisk | None]:
        limit, disk = None, None
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        try:
            limit = stack.enter_context(ProcessLimit.made())
        except Unavailable as error:
            skipped["forks"] = str(error)
        try:
            disk = stack.enter_context(SmallDisk.mounted(data))
        except Unavailable as error:
            skipped["disk"] = str(error)
        return limit, disk

    def _tenants(self) -> dict[str, str]:
        with open_database(self._database) as database:
            for tenant in (*TENANTS, HOSTILE):
                add_tenant(database, tenant)
            return {tenant.name: create_key(database, tenant.name)[0] for tenant in (*TENANTS, HOSTILE)}

    def _start(self) -> Served:
        options = ["--strategy", self.settings.strategy]
        if self.settings.memory_budget is not None:
            options += ["--memory-budget", self.settings.memory_budget]
        served = Served(self._folder, self._database, options, self._limit_group)
        self._quickest = min(self._quickest, served.start_seconds)
        self.limit = max(self.settings.limit, SLOW_STARTS * self._quickest)
        return served

    def _live(self, served: Served) -> None:
        self._zero = time.monotonic()
        end = float("inf") if self.settings.seconds is None else self._zero + self.settings.seconds
        self._clients = Clients(self.book, self._keys, self.settings.clients, self.settings.seed)
        self._clients.url = served.url
        with Watch(lambda: self.scene.served) as self._watch, self._clients:
            self._recovered(self._zero)
            for number, faults in enumerate(self.plan, start=1):
                if time.monotonic() > end:
                    break
                self._batch(number, list(faults))
            last = self._end(len(self.batches) + 1)
        last.until = time.monotonic()

    def _batch(self, number: int, faults: list[Fault]) -> None:
        begun = time.monotonic()
        ended = any(fault.kind == "end" for fault in faults)
        gone = any(fault.gone for fault in faults)
        if gone and not ledger.caught_up(self._database, self.book.attempts, _CAUGHT_UP):
            return  # what is not written yet would go with the gateway, and `differences` will tell of it
        self.scene.make(number, faults)
        if ended:
            self._end(number)
        if gone:
            self._replace(number)
        last = max(event.last() for event in self.scene.events if event.batch == number)
        recovered = self._recovered(last)
        unseen = all(fault.unseen for fault in faults)
        self.batches.append(
            Batch(number=number, begun=begun, last=last, recovered=recovered, over=time.monotonic(), unseen=unseen)
        )
        self._tell(number, faults, recovered)
        if recovered is None:
            self._replace(number)
            self._recovered(time.monotonic())
        elif self._choice.random() < _REST_SHARE:
            self._clients.rest(KEEP_ALIVE + 1.0)
        time.sleep(self._choice.uniform(0.0, self.settings.quiet))

    def _recovered(self, since: float) -> float | None:
        served = self.scene.served
        found = recovery(self.book, served.url, self._keys, since, max(_PATIENCE, 2 * self.limit))
        daemon = [process.pid for process in served.tree.of("daemon")]
        if found is not None and daemon and (gauge := Gauge.of([served.pid, *daemon])):
            if not self.growth or self._grown != served.pid:
                self.growth.append([gauge])
                self._grown = served.pid
            self.growth[-1].append(gauge)
        return found

    _quickest = float("inf")  # seconds of the quickest start so far
    _grown = 0  # process id of the gateway that the last of `growth` is of

    def _replace(self, number: int) -> None:
        """Another server in the place of one that is gone, or does not answer any more."""
        event = Event(number, Fault("replaced"), time.monotonic())
        self.scene.served.kill()
        self.remains += [what for what in self.scene.served.remains() if what.startswith("process")]
        self.scene.served = self._start()
        self.scene.events.append(event)
        for each in self.scene.events:
            if each.batch == number and each.fault.gone:
                each.until = time.monotonic()
        self._clients.url = self.scene.served.url

    def _end(self, number: int) -> Event:
        event = Event(number, Fault("end"), time.monotonic())
        self.scene.events.append(event)
        self.ends.append((self.scene.served.terminate(self._choice), allowed_end()))
        self.remains += self.scene.served.remains()
        return event

    def _tell(self, number: int, faults: list[Fault], recovered: float | None) -> None:
        names = ", ".join(fault.name for fault in faults)
        after = "no answer any more" if recovered is None else f"next answer after {recovered:.1f} s"
        print(f"{time.monotonic() - self._zero:7.1f} s  {number:3}  {names}: {after}", flush=True)

    def _facts(self) -> Facts:
        found = ledger.rows(self._database)
        return Facts(
            attempts=self.book.attempts,
            right=self.book.right,
            events=self.scene.events,
            batches=self.batches,
            looks=self._watch.looks,
            growth=[(gauges[0], gauges[-1]) for gauges in self.growth],
            ends=self.ends,
            remains=self.remains,
            ledger=ledger.differences(
                [row for row in found if row.tenant != HOSTILE.name], self.book.attempts, self.book.right
            ),
            rows=len(found),
            heeded_term=self.scene.heeded_term,
            hostile=self.scene.hostile,
            limit=self.limit,
            zero=self._zero,
        )
