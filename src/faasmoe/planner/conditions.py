"""What a prediction is of: the settings that a plan chooses, and the conditions that it cannot."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

from faasmoe.planner.activations import RecordedActivations
from faasmoe.planner.cluster import ClusterShape
from faasmoe.planner.machine import Machine, ProcessFootprint
from faasmoe.planner.shape import ModelShape
from faasmoe.planner.simulation import SimulationLimits
from faasmoe.platforms import DEFAULT, registry
from faasmoe.platforms.base import Overheads
from faasmoe.protocol.config import DEFAULT_ORCHESTRATOR_KEEP_ALIVE
from faasmoe.tenancy.prices import AWS_LAMBDA, Prices, read_prices


@dataclass(frozen=True, slots=True)
class Setting:
    """The settings that a plan chooses."""

    strategy: str  # shared or private
    block_size: int
    keep_alive: float  # seconds


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions that a plan cannot choose."""

    shape: ModelShape
    memory: int  # bytes for everything, on the machine of the orchestrators
    _: KW_ONLY
    activations: RecordedActivations | None = None
    machine: Machine = field(default_factory=Machine)  # each of them, if there are several
    cluster: ClusterShape | None = (
        None  # the nodes of functions; None: they run on the machine of the orchestrators
    )
    footprint: ProcessFootprint = field(default_factory=ProcessFootprint)
    limits: SimulationLimits = field(default_factory=SimulationLimits)
    overheads: Overheads = field(default_factory=lambda: registry.find(DEFAULT).overheads)
    prices: Prices = field(default_factory=lambda: read_prices(AWS_LAMBDA))
    orchestrator_keep_alive: float = DEFAULT_ORCHESTRATOR_KEEP_ALIVE  # seconds, of one without requests
    count_from: float | None = None  # seconds; None: a fifth of the time does not count, for nothing runs at first

    @property
    def nodes(self) -> int:
        """Machines that run functions."""
        return self.cluster.nodes if self.cluster else 1

    @property
    def capacity(self) -> int:
        """Bytes of all machines together."""
        return self.memory + (self.cluster.nodes * self.cluster.memory if self.cluster else 0)
