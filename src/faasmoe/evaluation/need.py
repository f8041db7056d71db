"""Whether memory can hold a strategy for all its tenants."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from faasmoe.errors import OptionError
from faasmoe.evaluation.experiment import Case
from faasmoe.evaluation.strategies.registry import (
    BASELINE,
    FAASMOE_PRIVATE,
    FAASMOE_SHARED,
    LOCAL_DISTRIBUTION,
    SHARED_FULL,
)
from faasmoe.machine import available_memory


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes: `models` full models and `once`, and for each tenant `tenant_models` and `tenant`. Rough, from above."""

    models: int
    once: int
    tenant_models: int
    tenant: int

    def of(self, tenants: int, model_bytes: int) -> int:
        """Of so many."""
        return (self.models + self.tenant_models * tenants) * model_bytes + self.once + self.tenant * tenants


_MIB = 1 << 20
_NEEDS = {
    BASELINE: Need(0, 0, 1, 400 * _MIB),
    SHARED_FULL: Need(1, 600 * _MIB, 0, 0),
    LOCAL_DISTRIBUTION: Need(1, 400 * _MIB, 0, 400 * _MIB),
    FAASMOE_SHARED: Need(1, 900 * _MIB, 0, 0),
    FAASMOE_PRIVATE: Need(1, 900 * _MIB, 0, 100 * _MIB),
}


def fitted(case: Case, model_bytes: int, extrapolate: bool, free: int | None = None) -> Case:
    """The case, if memory can hold it; with `extrapolate` of as many tenants of the baseline as it can hold.

    That is the only strategy whose memory is in proportion to its tenants. Raises `OptionError` if it cannot.
    """
    if case.memory_limit is not None:
        return case
    free = available_memory() if free is None else free
    strategy, tenants = case.orders.strategy, case.orders.tenants
    need = _NEEDS[strategy]
    needed = need.of(len(tenants), model_bytes)
    if needed <= free:
        return case
    possible = int(free // need.of(1, model_bytes))
    if extrapolate and strategy == BASELINE and possible:
        orders = msgspec.structs.replace(case.orders, tenants=tenants[:possible])
        return replace(case, orders=orders, measured=possible)
    also = f", or --extrapolate from {possible}" if strategy == BASELINE and possible else ""
    raise OptionError(
        f"--strategy {strategy}: {len(tenants)} tenants take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; "
        f"leave it out, take fewer --tenants or a smaller model{also}"
    )
