"""Measured memory and times of processes that do not follow from the model's size.

Footprints are those that `benchmarks.planner` and `benchmarks.strategies` find with torch's build for CPUs; durations
are those of docs/platform.md and docs/performance.md (two cores of an AMD EPYC, Zen 3). They are rough on any other
machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from faasmoe.evaluation.torch_memory import beyond_cpu_build
from faasmoe.util.machine import cores

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFootprint:
    """Bytes of processes without weights and KV cache, with torch's build for CPUs."""

    gateway: int = 80 * _MIB
    orchestrator: int = 290 * _MIB  # the template that orchestrators are forked from
    own: int = 14 * _MIB  # what each orchestrator has of its own, beside what follows
    own_by_width: int = 5 << 10  # for each of a token's H numbers: what a step of a hundred tokens computes with
    platform: int = 45 * _MIB  # daemon and zygote, with what instances share with it
    instance: int = 42 * _MIB // 10  # what it has of its own beside its weights, with weights that kernels read

    @classmethod
    def here(cls) -> ProcessFootprint:
        """The footprint with the installed build of torch, which the template imports."""
        usual, more = cls(), beyond_cpu_build()
        return replace(usual, orchestrator=usual.orchestrator + more.own + more.files)

    def each_orchestrator(self, width: int) -> int:
        """The private memory of one orchestrator of a model of H = `width`."""
        return self.own + self.own_by_width * width


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The speed of a machine."""

    cores: int = field(default_factory=cores)
    bandwidth: float = 20e9  # bytes of weights a second, all cores together
    # floating-point operations a second of a step with prompts, all cores together: with it bursts that were measured
    # on the EPYC and on a Xeon (Emerald Rapids) have as many invocations as predicted, within 4 % (docs/planning.md)
    operations: float = 80e9
    disk: float = 1e9  # bytes a second
    call: float = 0.3e-3  # seconds of an empty call
    layer: float = 2e-3  # seconds of a layer beside reading its weights
    sequence: float = 0.25e-3  # seconds of a layer for each further sequence in a step
    cold_start: float = 8.4e-3  # seconds until an instance with its weights in the page cache has answered
    fork: float = 30e-3  # seconds of each further one of a burst, for which no process was forked ahead
