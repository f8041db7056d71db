"""Options that all cases of an experiment share, and the settings that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faasmoe.cli.numeric import whole
from faasmoe.cli.options import BlockSize, MeasuredKeepAlive
from faasmoe.cli.platforms import PlatformName, PlatformOptions, given_options
from faasmoe.platforms import DEFAULT
from faasmoe.platforms.base import DEFAULT_KEEP_ALIVE

if TYPE_CHECKING:
    from faasmoe.evaluation.experiment import Settings
    from faasmoe.evaluation.experiments import Base
    from faasmoe.evaluation.strategies.protocol import Orders


Out = Annotated[
    Path,
    typer.Option(help="File of results, of one or several experiments. Trials in the file are not run again."),
]
Trials = Annotated[int, whole(1, 1000, help="Trials of each case; use 10 for figures to be published.")]
Strategy = Annotated[
    list[str] | None,
    typer.Option(help="Strategy, as in docs/evaluation.md; may be repeated. Default: all.", show_default=False),
]
Extrapolate = Annotated[
    bool,
    typer.Option(
        "--extrapolate",
        help="Where memory cannot hold the baseline for all tenants, run as many as it can hold, and mark the figures.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ServedParameters:
    """Options that say how the model of an experiment is served."""

    block_size: BlockSize = None
    platform: PlatformName = DEFAULT
    platform_option: PlatformOptions = None
    keep_alive: MeasuredKeepAlive = None


@dataclass(frozen=True, kw_only=True)
class ServedAloneParameters(ServedParameters):
    """The same options, with one expert in a function, so that as little as possible is in memory."""

    block_size: BlockSize = 1


def base_of(
    model: str | None,
    settings: Settings,
    *,
    trials: int,
    served: ServedParameters,
    seed: int,
    dtype: str = "auto",
    memory_budget: int | None = None,
    extrapolate: bool = False,
) -> Base:
    """Raises `OptionError` for an option that the model or the platform cannot have."""
    from faasmoe.evaluation.experiments import Base
    from faasmoe.evaluation.strategies.protocol import Orders
    from faasmoe.model.checkpoint.source import resolve
    from faasmoe.model.config.facts import ConfigFacts
    from faasmoe.platforms.registry import find

    own, entry = tuple(served.platform_option or ()), find(served.platform)
    entry.parse(given_options(served.keep_alive, memory_budget) | entry.read(own))
    source = resolve(model)
    ConfigFacts.read(source.folder).check(served.block_size)
    orders = Orders(
        strategy="",
        model=str(source.folder),
        tenants=(),
        block_size=served.block_size,
        keep_alive=served.keep_alive,
        memory_budget=memory_budget,
        dtype=dtype,
        platform=served.platform,
        platform_option=own,
    )
    return Base(
        name=source.name,
        orders=orders,
        settings={**settings, **_settings_of(orders), "seed": seed},
        trials=trials,
        seed=seed,
        extrapolate=extrapolate,
    )


def _settings_of(orders: Orders) -> Settings:
    """The settings that tell results of one experiment apart by how the model was served."""
    chosen = {
        "platform": "" if orders.platform == DEFAULT else orders.platform,
        "platform_option": " ".join(sorted(orders.platform_option)),
    }
    return {
        "block_size": orders.block_size,
        "keep_alive": DEFAULT_KEEP_ALIVE if orders.keep_alive is None else orders.keep_alive,
        "memory_budget": orders.memory_budget,
        "dtype": orders.dtype,
        **{name: value for name, value in chosen.items() if value},  # so that results of older versions match
    }


def usual_sizes(base: Base) -> list[int]:
    """Experts in one function: some sizes, and all of the largest layer."""
    from faasmoe.model.architecture import inspect_architecture, read_config

    architecture = inspect_architecture(read_config(Path(base.orders.model)))
    most = max(experts.num_experts for experts in architecture.experts)
    return [each for each in (1, 5, 10, 20) if each < most] + [most]
