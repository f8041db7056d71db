"""Kill, hang and starve the processes of a real server under load, and hold its answers against undisturbed ones.

    python -m tests.chaos 60 --seed 7 --strategy private --json facts.json

SIGKILL, SIGSTOP and SIGTERM to every kind of process, pauses and freezes of all, forks that fail, a disk that is full,
descriptors that run out, hostile bodies, and ends of the server, drawn from the seed, while clients of three tenants
ask. Exits with 1 if a check has failed. Forks and the disk take root, or are skipped by name.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from tests.chaos.campaign import SLOW_STARTS, Campaign, Settings
from tests.chaos.faults import timeline
from tests.chaos.plan import covering, drawn
from tests.chaos.verdict import Facts, table


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, nargs="?", default=5.0, help="0: each kind of fault once")
    parser.add_argument("--seed", type=int, help="default: the time")
    parser.add_argument("--strategy", choices=["shared", "private"], default="shared")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for hangs and for the next answer")
    parser.add_argument("--clients", type=int, default=2, help="of each of three tenants")
    parser.add_argument(
        "--memory-budget", help="of the server: one in which half of the functions fit makes evictions"
    )
    parser.add_argument(
        "--timeline", type=Path, default=Path("chaos-timeline.json"), help="where faults are written"
    )
    parser.add_argument("--json", type=Path, help="where figures are written")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    seed = int(time.time()) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    plan = drawn(random.Random(f"plan {seed}")) if args.minutes else covering()
    seconds = 60 * args.minutes if args.minutes else None
    settings = Settings(
        seed=seed,
        strategy=args.strategy,
        limit=args.limit,
        seconds=seconds,
        clients=args.clients,
        memory_budget=args.memory_budget,
    )
    campaign = Campaign(settings=settings, plan=plan)
    facts = campaign.run()
    args.timeline.write_text(timeline(facts.events, facts.zero))
    checks = facts.checks()
    print(f"\n{summary(facts)}")
    if facts.limit > args.limit:
        print(
            f"this machine is slow now: the quickest start took {facts.limit / SLOW_STARTS:.1f} s, so limits are longer"
        )
    for kind, why in campaign.scene.skipped.items():
        print(f"skipped {kind}: {why}")
    print(f"\n{table(checks)}\n\nseed {seed}, faults in {args.timeline}")
    if args.json:
        found = {check.name: {**vars(check), "ok": check.ok} for check in checks}
        args.json.write_text(
            json.dumps({"seed": seed, **vars(settings), **counts(facts), "checks": found}, indent=1)
        )
    sys.exit(not all(check.ok for check in checks))


def _end(number: int, _: object) -> None:
    """The server ends as well, once and undisturbed."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def counts(facts: Facts) -> dict[str, object]:
    """How much was asked and done."""
    return {
        "requests": len(facts.attempts),
        "answered": sum(attempt.answer.done for attempt in facts.attempts),
        "failed": sum(attempt.failed for attempt in facts.attempts),
        "cancelled": sum(attempt.cancelled for attempt in facts.attempts),
        "batches": len(facts.batches),
        "faults": dict(Counter(event.fault.name for event in facts.events)),
        "signals": sum(len(event.pids) for event in facts.events),
        "recovery_seconds": [batch.recovered for batch in facts.batches],
    }


def summary(facts: Facts) -> str:
    """What was done, 80 columns wide."""
    made = counts(facts)
    lines = ["{requests} requests: {answered} answered, {failed} failed, {cancelled} cancelled".format(**made)]
    lines.append("{batches} batches of faults, {signals} signals:".format(**made))
    line = ""
    for name, count in sorted(Counter(event.fault.name for event in facts.events).items()):
        item = f"{count} x {name}"
        if len(line) + len(item) > 76:
            lines.append(f"  {line}")
            line = ""
        line += item + ", "
    return "\n".join([*lines, f"  {line.rstrip(', ')}"])


if __name__ == "__main__":
    main()
