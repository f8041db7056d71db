"""Which faults are made, batch by batch: drawn, or one that has each kind of process killed and stopped."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.chaos.faults import Fault, Kind
from tests.chaos.tree import CHILDREN, Role

Batch = Sequence[Fault]

_WEIGHTS: dict[Kind, int] = {
    "kill": 30,
    "stop": 25,
    "pause": 12,
    "term": 6,
    "freeze": 6,
    "storm": 4,
    "forks": 6,
    "descriptors": 6,
    "disk": 5,
    "hostile": 5,
    "end": 2,
}
COLD = Fault("kill", "instance", all=True)  # what hangs at starting instances is seen at once
_COLD_SHARE = 0.3  # of batches
_ALL_SHARE = 0.15  # of signals
_LONG_FREEZE = 70.0  # seconds, as of a paused virtual machine
_LONG_SHARE = 0.1  # of freezes


def drawn(choice: random.Random) -> Iterator[Batch]:
    """For ever. An end is a batch of its own; so is a kill of the gateway, after which there is nothing to disturb."""
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    while True:
        batch = [_fault(kind, choice) for kind in choice.choices(kinds, weights, k=choice.choice((1, 1, 1, 2, 3)))]
        if choice.random() < _COLD_SHARE:
            batch.append(COLD)
        alone = next((fault for fault in batch if fault.gone), None)
        yield [alone] if alone else batch


def _fault(kind: Kind, choice: random.Random) -> Fault:
    match kind:
        case "kill":
            return Fault(kind, choice.choice((*CHILDREN, *CHILDREN, "gateway")), all=choice.random() < _ALL_SHARE)
        case "stop":
            return Fault(kind, choice.choice(CHILDREN), all=choice.random() < _ALL_SHARE)
        case "pause":
            return Fault(kind, choice.choice((*CHILDREN, "gateway")), choice.uniform(1.0, 8.0))
        case "term":
            return Fault(kind, choice.choice((None, *CHILDREN)))
        case "freeze":
            long = choice.random() < _LONG_SHARE
            return Fault(kind, seconds=_LONG_FREEZE if long else choice.uniform(1.0, 15.0))
        case "descriptors":
            role: Role = choice.choice(("gateway", "gateway", "daemon", "orchestrator", "zygote"))
            return Fault(kind, role, choice.uniform(2.0, 8.0))
        case "end":
            return Fault(kind)
        case _:
            return Fault(kind, seconds=choice.uniform(2.0, 8.0))


def covering() -> Iterator[Batch]:
    """Each kind of process killed and stopped for ever, and every other kind of fault once, as short as can be.

    What recovers apart from each other is done together. The first and the third batch must not be noticed.
    """
    yield [Fault("kill", "instance"), Fault("kill", "worker"), Fault("kill", "zygote")]
    yield [Fault("stop", "instance", all=True), Fault("stop", "worker"), Fault("stop", "orchestrator"),
           Fault("stop", "reader", all=True)]  # fmt: skip
    yield [Fault("term"), Fault("kill", "daemon"), Fault("storm", seconds=1.5)]
    yield [Fault("stop", "zygote"), COLD, Fault("kill", "template"), Fault("kill", "fork server")]
    yield [Fault("stop", "daemon"), COLD, Fault("stop", "template"), Fault("kill", "orchestrator"),
           Fault("stop", "fork server"), Fault("kill", "reader", all=True)]  # fmt: skip
    yield [Fault("forks", seconds=2.0), Fault("kill", "daemon")]
    yield [Fault("descriptors", "gateway", 1.0), Fault("disk", seconds=1.0), Fault("freeze", seconds=1.0)]
    yield [Fault("kill", "gateway")]
