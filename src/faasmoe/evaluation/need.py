"""Checks that memory can hold a strategy with all its tenants."""

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
from faasmoe.evaluation.torch_memory import Taken, beyond_cpu_build
from faasmoe.util.machine import available_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes: `models` full models and `once`, and for each tenant `tenant_models` and `tenant`. Rough, from above.

    `processes` have torch imported, and `tenant_processes` of each tenant.
    """

    models: int
    once: int
    tenant_models: int
    tenant: int
    processes: int
    tenant_processes: int

    def of(self, tenants: int, model_bytes: int, torch: Taken) -> int:
        """The need of so many tenants, if each process takes `torch` more than with the build for CPUs."""
        models = (self.models + self.tenant_models * tenants) * model_bytes
        libraries = (self.processes + self.tenant_processes * tenants) * torch.own + torch.files
        return models + libraries + self.once + self.tenant * tenants


_MIB = 1 << 20
_NEEDS = {
    BASELINE: Need(models=0, once=0, tenant_models=1, tenant=400 * _MIB, processes=0, tenant_processes=1),
    SHARED_FULL: Need(models=1, once=600 * _MIB, tenant_models=0, tenant=0, processes=1, tenant_processes=0),
    LOCAL_DISTRIBUTION: Need(
        models=1, once=400 * _MIB, tenant_models=0, tenant=400 * _MIB, processes=1, tenant_processes=1
    ),
    FAASMOE_SHARED: Need(models=1, once=700 * _MIB, tenant_models=0, tenant=0, processes=1, tenant_processes=0),
    FAASMOE_PRIVATE: Need(
        models=1, once=700 * _MIB, tenant_models=0, tenant=100 * _MIB, processes=1, tenant_processes=0
    ),
}


def fitted(
    case: Case, model_bytes: int, extrapolate: bool, free: int | None = None, torch: Taken | None = None
) -> Case:
    """The case, if memory can hold it; with `extrapolate` of as many tenants of the baseline as it can hold.

    `free` and `torch` are found out unless they are given: bytes, and what torch takes more than its build for CPUs.
    That is the only strategy whose memory is in proportion to its tenants. Raises `OptionError` if it cannot.
    """
    if case.memory_limit is not None:
        return case
    free = available_memory() if free is None else free
    torch = beyond_cpu_build() if torch is None else torch
    strategy, tenants = case.orders.strategy, case.orders.tenants
    need = _NEEDS[strategy]
    needed = need.of(len(tenants), model_bytes, torch)
    if needed <= free:
        return case
    possible = int(free // need.of(1, model_bytes, torch))
    if extrapolate and strategy == BASELINE and possible:
        orders = msgspec.structs.replace(case.orders, tenants=tenants[:possible])
        return replace(case, orders=orders, measured=possible)
    also = f", or --extrapolate from {possible}" if strategy == BASELINE and possible else ""
    raise OptionError(
        f"--strategy {strategy}: {len(tenants)} tenants take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; "
        f"leave it out, take fewer --tenants or a smaller model{also}"
    )
