"""Kill gateway, orchestrators and the daemon at random under load; then: is every answered request in the ledger, once?

`python -m tests.ledger_soak --seconds 60` prints what it has found and fails if the answer is no.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field

import httpx
from sqlalchemy import select

from faasmoe.tenancy import tables
from faasmoe.tenancy.keys import create_key
from faasmoe.tenancy.schema import open_database
from faasmoe.tenancy.tenants import Tenant, add_tenant
from tests import processes
from tests.integration.servers import Server, serve

CLIENTS = 4
ANSWERS = 12  # between two kills, at most
PATIENCE = 120.0  # seconds
GATEWAY_EVERY = 3  # kills; the others are of these:
OTHERS = ("orchestrator", "daemon")


@dataclass
class Outcome:
    """What clients were answered, and what the ledger has: completion tokens by request."""

    answered: dict[str, int] = field(default_factory=dict)
    recorded: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)

    def problems(self) -> list[str]:
        lost = self.answered.keys() - self.recorded.keys()
        wrong = [i for i, tokens in self.answered.items() if self.recorded.get(i, tokens) != tokens]
        return [f"not in the ledger: {i}" for i in lost] + [f"other tokens in the ledger: {i}" for i in wrong]


class Load:
    """Clients that ask again and again, whatever happens to the server."""

    def __init__(self, key: str, outcome: Outcome) -> None:
        self._headers = {"Authorization": f"Bearer {key}"}
        self._outcome = outcome
        self._ended = threading.Event()
        self._came = threading.Condition()
        self.url = ""
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CLIENTS)]

    def use(self, url: str) -> None:
        """Ask this server from now on."""
        self.url = url
        if not self._threads[0].ident:
            for thread in self._threads:
                thread.start()

    def wait(self, more: int) -> None:
        """Until so many more requests have been answered."""
        with self._came:
            goal = len(self._outcome.answered) + more
            assert self._came.wait_for(lambda: len(self._outcome.answered) >= goal, PATIENCE), "no answers come"

    def end(self) -> None:
        """Stop asking. May be called twice."""
        self._ended.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()

    def _ask(self, number: int) -> None:
        with httpx.Client(headers=self._headers, timeout=60) as client:  # each loads certificates, once
            self._ask_as(client, random.Random(number))

    def _ask_as(self, client: httpx.Client, chance: random.Random) -> None:
        while not self._ended.is_set():
            body = {
                "model": "faasmoe-demo",
                "prompt": "It was",
                "max_tokens": chance.randint(1, 12),
                "ignore_eos": True,
            }
            try:
                answer = self._stream(client, body) if chance.random() < 0.5 else self._whole(client, body)
            except httpx.HTTPError:
                answer = None
            if answer:
                with self._came:
                    self._outcome.answered[answer[0]] = answer[1]
                    self._came.notify_all()
            else:
                self._ended.wait(0.05)  # the server is gone for a while

    def _whole(self, client: httpx.Client, body: dict) -> tuple[str, int] | None:
        answer = client.post(f"{self.url}/v1/completions", json=body)
        if answer.status_code != 200:
            return None
        facts = answer.json()
        return facts["id"], facts["usage"]["completion_tokens"]

    def _stream(self, client: httpx.Client, body: dict) -> tuple[str, int] | None:
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        found = None
        with client.stream("POST", f"{self.url}/v1/completions", json=body) as answer:
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    return found
                if data and json.loads(data).get("usage"):
                    facts = json.loads(data)
                    found = facts["id"], facts["usage"]["completion_tokens"]
        return None


def soak(seconds: float = 0.0, gateways: int = 1, seed: int = 1) -> Outcome:
    """Kill for so many seconds, and until so many gateways are dead."""
    outcome, chance = Outcome(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        url = f"sqlite:///{folder}/tenants.db"
        with open_database(url) as database:
            add_tenant(database, Tenant("acme"))
            key, _ = create_key(database, "acme")
        load = Load(key, outcome)
        end = time.monotonic() + seconds
        try:
            while outcome.kills.get("gateway", 0) < gateways or time.monotonic() < end:
                with serve("--database", url, "--log-level", "error") as server:
                    load.use(server.url)
                    for number in range(1, GATEWAY_EVERY + 1):
                        load.wait(chance.randint(1, ANSWERS))
                        _kill(server, "gateway" if number == GATEWAY_EVERY else chance.choice(OTHERS), outcome)
            with serve("--database", url, "--log-level", "error") as server:
                load.use(server.url)
                load.wait(CLIENTS)
                load.end()
        finally:
            load.end()
        with open_database(url) as database, database.read() as connection:
            columns = tables.requests.c
            rows = connection.execute(select(columns.id, columns.completion_tokens)).all()
        assert len(rows) == len({row.id for row in rows})
        outcome.recorded = {row.id: row.completion_tokens for row in rows}
    return outcome


def _kill(server: Server, what: str, outcome: Outcome) -> None:
    """Nothing if there is none at the moment."""
    pid = server.process.pid
    if what == "orchestrator":
        pid = server.orchestrator()
    elif what == "daemon":
        daemon = processes.daemon(server.process.pid)
        pid = daemon.pid if daemon else None
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        outcome.kills[what] = outcome.kills.get(what, 0) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    outcome = soak(args.seconds)
    print(f"answered {len(outcome.answered)}, recorded {len(outcome.recorded)}, kills {outcome.kills}")
    problems = outcome.problems()
    print("\n".join(problems) or "every answered request is in the ledger once")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
