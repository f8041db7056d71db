"""What all cases of an experiment have in common: options of `faasmoe evaluate`, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faasmoe.cli.numeric import whole
from faasmoe.cli.platforms import given_options
from faasmoe.platforms.base import DEFAULT_KEEP_ALIVE

if TYPE_CHECKING:
    from faasmoe.evaluation.experiment import Settings
    from faasmoe.evaluation.experiments import Base


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


def base_of(
    model: str | None,
    settings: Settings,
    trials: int,
    seed: int,
    block_size: int | None,
    keep_alive: float | None,
    dtype: str,
    platform: str,
    platform_option: Sequence[str] | None,
    memory_budget: int | None = None,
    extrapolate: bool = False,
) -> Base:
    """Raises `OptionError` for an option that the model or the platform cannot have."""
    from faasmoe.evaluation.experiments import Base
    from faasmoe.evaluation.strategies.protocol import Orders
    from faasmoe.model.checkpoint.source import resolve
    from faasmoe.model.config.facts import ConfigFacts
    from faasmoe.platforms.registry import DEFAULT, find

    own, entry = tuple(platform_option or ()), find(platform)
    entry.parse(given_options(keep_alive, memory_budget) | entry.read(own))
    source = resolve(model)
    ConfigFacts.read(source.folder).check(block_size)
    orders = Orders(
        strategy="",
        model=str(source.folder),
        tenants=(),
        block_size=block_size,
        keep_alive=keep_alive,
        memory_budget=memory_budget,
        dtype=dtype,
        platform=platform,
        platform_option=own,
    )
    kept = DEFAULT_KEEP_ALIVE if keep_alive is None else keep_alive
    common = {
        "block_size": block_size,
        "keep_alive": kept,
        "memory_budget": memory_budget,
        "dtype": dtype,
    }
    chosen = {"platform": "" if platform == DEFAULT else platform, "platform_option": " ".join(sorted(own))}
    chosen = {name: value for name, value in chosen.items() if value}  # so that results of older versions match
    return Base(
        name=source.name,
        orders=orders,
        settings={**settings, **common, **chosen, "seed": seed},
        trials=trials,
        seed=seed,
        extrapolate=extrapolate,
    )


def usual_sizes(base: Base) -> list[int]:
    """Experts in one function: some sizes, and all of the largest layer."""
    from faasmoe.model.architecture import inspect_architecture, read_config

    architecture = inspect_architecture(read_config(Path(base.orders.model)))
    most = max(experts.num_experts for experts in architecture.experts)
    return [each for each in (1, 5, 10, 20) if each < most] + [most]
