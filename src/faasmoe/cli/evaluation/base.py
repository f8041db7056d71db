"""What all cases of an experiment have in common, from the options of `faasmoe evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from faasmoe.cli.options import DEFAULT_KEEP_ALIVE, given_options

if TYPE_CHECKING:
    from faasmoe.evaluation.experiment import Settings
    from faasmoe.evaluation.experiments import Base


def base_of(
    model: str | None,
    settings: Settings,
    trials: int,
    seed: int,
    block_size: int | None,
    keep_alive: float | None,
    dtype: str,
    platform: str,
    memory_budget: int | None = None,
    extrapolate: bool = False,
) -> Base:
    """Raises `OptionError` for an option that the model or the platform cannot have."""
    from faasmoe.evaluation.experiments import Base
    from faasmoe.evaluation.strategies.protocol import Orders
    from faasmoe.model.checkpoint.source import resolve
    from faasmoe.model.config.facts import ConfigFacts
    from faasmoe.platforms.registry import DEFAULT, find

    find(platform).parse(given_options(keep_alive, memory_budget))
    source = resolve(model)
    ConfigFacts.read(source.folder).check(block_size)
    orders = Orders("", str(source.folder), (), block_size, keep_alive, memory_budget, dtype, platform=platform)
    kept = DEFAULT_KEEP_ALIVE if keep_alive is None else keep_alive
    common = {
        "block_size": block_size,
        "keep_alive": kept,
        "memory_budget": memory_budget,
        "dtype": dtype,
    }
    chosen = (
        {} if platform == DEFAULT else {"platform": platform}
    )  # results of the default platform stay as they were
    return Base(source.name, orders, {**settings, **common, **chosen, "seed": seed}, trials, seed, extrapolate)


def usual_sizes(base: Base) -> list[int]:
    """Experts in one function: some sizes, and all of the largest layer."""
    from faasmoe.model.architecture import inspect_architecture, read_config

    architecture = inspect_architecture(read_config(Path(base.orders.model)))
    most = max(experts.num_experts for experts in architecture.experts)
    return [each for each in (1, 5, 10, 20) if each < most] + [most]
