"""Options of `faasmoe plan`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from faasmoe.cli.evaluation.workloads import LEAST_RATE, MOST_RATE, Replay
from faasmoe.cli.numeric import MOST_COUNT, MOST_SECONDS, real, size, whole
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.planner.cluster import ClusterShape
    from faasmoe.planner.conditions import Setting
    from faasmoe.planner.machine import Machine
    from faasmoe.planner.shape import ModelShape
    from faasmoe.planner.simulation import SimulatedRequests

_MOST_NODES = 10_000

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A published geometry such as qwen1.5-moe-a2.7b, a folder, or a hub id; the demo model without it. "
        "No weights are loaded.",
        show_default=False,
    ),
]
TotalRate = Annotated[float, real(LEAST_RATE, MOST_RATE, help="Requests a second of all tenants together.")]
Memory = Annotated[int, size(help="Memory for all processes together. Default: 16GiB.", show_default=False)]
BlockSizes = Annotated[
    list[int] | None,
    whole(
        1, MOST_COUNT, "--block-size", help="Experts in one function; may be repeated. Default: several are compared.",
        show_default=False,
    ),
]  # fmt: skip
KeepAlives = Annotated[
    list[float] | None,
    real(
        0.1,
        MOST_SECONDS,
        "--keep-alive",
        help="Seconds without a call until an instance is stopped; may be repeated. Default: 10, 60, 300.",
        show_default=False,
    ),
]
Strategy = Annotated[
    Literal["shared", "private", "both"], typer.Option(help="One orchestrator for all tenants, or one each.")
]
Load = Annotated[
    Literal["poisson", "bursty"],
    typer.Option(help="Arrivals of requests: evenly (Poisson), or in bursts of few tenants."),
]
MedianPrompt = Annotated[int, whole(1, MOST_COUNT, help="Median length of prompts in tokens.")]
MedianAnswer = Annotated[int, whole(1, MOST_COUNT, help="Median length of completions in tokens.")]
Spread = Annotated[float, real(0, 3, help="Standard deviation of the natural logarithm of lengths.")]
Routing = Annotated[
    Path | None,
    typer.Option(
        help="Activations from `faasmoe models record`. Default: uniform.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
Bandwidth = Annotated[
    float | None,
    real(
        0.001,
        MOST_COUNT,
        help="GB of weights a second that the machine's cores read together.",
        show_default=False,
    ),
]
Cores = Annotated[
    int | None,
    whole(
        1, MOST_COUNT, help="CPU cores of the target machine. Default: those of this machine.", show_default=False
    ),
]
PriceTable = Annotated[
    Path,
    typer.Option(metavar="FILE", help="A price table in TOML, or aws-lambda, the one that comes with FaaSMoE."),
]
Layers = Annotated[
    int | None, whole(1, MOST_COUNT, help="Layers of a published geometry. Default: all.", show_default=False)
]


Nodes = Annotated[
    int | None,
    whole(
        1,
        _MOST_NODES,
        help="Nodes that run the functions, as with `faasmoe serve --platform nodes`; --memory is then that of the "
        "orchestrators' machine, and --cores and --bandwidth those of each machine. Default: one machine for all.",
        show_default=False,
    ),
]
NodeMemory = Annotated[
    int | None, size(help="Memory of each node. Default: that of --memory.", show_default=False)
]
Network = Annotated[
    float, real(0.001, MOST_COUNT, help="Gbit/s of the network between the orchestrators' machine and nodes.")
]
RoundTrip = Annotated[
    float,
    real(0, 1e6, help="Microseconds that a call of another machine takes longer than one of the same machine."),
]


@dataclass(frozen=True, kw_only=True)
class ClusterParameters:
    """The nodes of functions."""

    nodes: Nodes = None
    node_memory: NodeMemory = None
    network: Network = 10.0
    round_trip: RoundTrip = 200.0

    def cluster(self, memory: int) -> ClusterShape | None:
        """The nodes, each with `memory` bytes if nothing else is said. Raises `OptionError` without --nodes."""
        from faasmoe.planner.cluster import ClusterShape

        if self.nodes is None:
            if self.node_memory is not None:
                raise OptionError(f"--node-memory {self.node_memory}: --nodes says how many there are")
            return None
        return ClusterShape(
            nodes=self.nodes,
            memory=memory if self.node_memory is None else self.node_memory,
            bandwidth=self.network * 1e9 / 8,
            round_trip=self.round_trip / 1e6,
        )


@dataclass(frozen=True, kw_only=True)
class SettingParameters:
    """The settings to compare."""

    block_size: BlockSizes = None
    keep_alive: KeepAlives = None
    strategy: Strategy = "both"

    @property
    def keep_alives(self) -> list[float]:
        """In seconds."""
        return self.keep_alive or [10.0, 60.0, 300.0]

    def settings(self, shape: ModelShape) -> list[Setting]:
        """Every combination of strategies, block sizes and keep-alives."""
        from faasmoe.planner.conditions import Setting
        from faasmoe.planner.plan import usual_block_sizes

        strategies = ["shared", "private"] if self.strategy == "both" else [self.strategy]
        choices = product(strategies, self.block_size or usual_block_sizes(shape), self.keep_alives)
        return [Setting(*choice) for choice in choices]


@dataclass(frozen=True, kw_only=True)
class RequestParameters:
    """The requests to simulate: when they come, and how long they are."""

    load: Load = "poisson"
    replay: Replay = None
    prompt_tokens: MedianPrompt = 100
    answer_tokens: MedianAnswer = 100
    spread: Spread = 0.5

    def requests(self, tenants: int, rate: float, seed: int, longest_keep_alive: float) -> SimulatedRequests:
        """The requests of a file, or drawn ones: `rate` a second, for a time in which instances may idle."""
        from faasmoe.evaluation.workloads.arrivals import bursty, poisson
        from faasmoe.evaluation.workloads.ask import Lengths
        from faasmoe.evaluation.workloads.replay import replay
        from faasmoe.planner.plan import requests_of, seconds_to_simulate

        if self.replay:
            return requests_of(replay(self.replay))
        workload = {"poisson": poisson, "bursty": bursty}[self.load]
        lengths = Lengths(self.prompt_tokens, self.answer_tokens, self.spread)
        return requests_of(workload(tenants, rate, seconds_to_simulate(rate, longest_keep_alive), seed, lengths))


@dataclass(frozen=True, kw_only=True)
class MachineParameters:
    """The target machine."""

    bandwidth: Bandwidth = None
    cores: Cores = None

    def machine(self) -> Machine:
        """The machine that was measured, with other cores or another bandwidth if these are given."""
        from faasmoe.planner.machine import Machine

        machine = Machine()
        if self.bandwidth is not None:
            factor = self.bandwidth * 1e9 / machine.bandwidth
            machine = replace(machine, bandwidth=self.bandwidth * 1e9, operations=machine.operations * factor)
        return machine if self.cores is None else replace(machine, cores=self.cores)
