"""What tenants cost a request: its key, its limits, and its record in the ledger.

- `check_p50_ms`, to which the limit belongs: from the text of a key to a lease within all limits, with 300 tenants that
  have a key and limits each, and the limits' headers of the answer.
- `record_alone_p50_ms`: one record until it is durable, with nobody else about. It is the disk's `fsync`, for which see
  `fsync_p50_ms`, and a commit.
- `record_shared_ms`: 64 clients that record again and again, time over records: the cost of one with
  a shared `fsync`.
- `record_shared_p50_ms`: what one of these waits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.figures import Figures, report
from faasmoe.api.openai.api import OPENAI
from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.keys import create_key
from faasmoe.tenancy.ledger.ledger import Ledger, Record
from faasmoe.tenancy.limits.lease import LeaseRequest
from faasmoe.tenancy.service import TenancyService
from faasmoe.tenancy.tenants import Tenant, add_tenant

LIMITS = {"check_p50_ms": 0.5, "record_shared_ms": 0.5}
TENANTS = 300
CLIENTS = 64


def checks(tenancy: TenancyService, keys: list[str], rounds: int) -> list[float]:
    """Seconds of single checks."""
    taken = []
    for number in range(rounds):
        began = time.perf_counter()
        caller = tenancy.authentication.tenant(keys[number % len(keys)], "127.0.0.1")
        assert caller.tenant is not None
        arrival = tenancy.limits.arrive(caller.tenant, 1000)
        lease = arrival.admit(LeaseRequest(100, 1, 100))
        OPENAI.rate_headers(tenancy.limits.standing(caller.tenant))
        taken.append(time.perf_counter() - began)
        lease.generated(100)
        lease.end()
        arrival.leave()
    return taken


def record(number: object) -> Record:
    return Record(
        id=f"cmpl-{number}",
        tenant="acme",
        key="fm-a",
        model="m",
        ended=time.time(),
        outcome="stop",
        prompt_tokens=100,
        cached_tokens=0,
        completion_tokens=100,
        first_token_seconds=0.1,
        seconds=1.0,
    )


def alone(ledger: Ledger, count: int) -> list[float]:
    taken = []
    for number in range(count):
        began = time.perf_counter()
        ledger.add(record(number)).result()
        taken.append(time.perf_counter() - began)
    return taken


def shared(ledger: Ledger, count: int) -> tuple[float, list[float]]:
    """Seconds for a record of `CLIENTS` that have `count` each, and what each waits."""
    taken: list[float] = []

    def client(name: int) -> None:
        for number in range(count):
            began = time.perf_counter()
            ledger.add(record(f"{name}-{number}")).result()
            taken.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client, args=(name,)) for name in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / (CLIENTS * count), taken


def fsyncs(folder: Path, count: int) -> list[float]:
    taken = []
    with (folder / "file").open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return taken


def p50_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,  # where the disk is a disk
        open_database(f"sqlite:///{folder}/tenants.db") as database,
    ):
        keys = []
        for number in range(TENANTS):
            add_tenant(database, Tenant(f"t{number}", weight=1.0, rpm=10**6, tpm=10**9, concurrency=10**3))
            keys.append(create_key(database, f"t{number}")[0])
        with TenancyService(database, local=False) as tenancy:
            taken = checks(tenancy, keys, 20_000)
            single = alone(tenancy.ledger, 200)
            each, waited = shared(tenancy.ledger, 100)
        syncs = fsyncs(Path(folder), 200)
    figures: Figures = {
        "check_p50_ms": p50_ms(taken),
        "check_p99_ms": statistics.quantiles(taken, n=100)[98] * 1000,
        "record_alone_p50_ms": p50_ms(single),
        "record_shared_ms": each * 1000,
        "record_shared_p50_ms": p50_ms(waited),
        "fsync_p50_ms": p50_ms(syncs),
    }
    report(figures, LIMITS, args.json)


if __name__ == "__main__":
    main()
