"""The workload of the paper (arXiv 2604.26881): six tenants in closed loop, five tasks each, 30 requests a round.

The paper draws its tasks from BIG-Bench. Those here have the same kinds of questions and are this project's own
(`tasks.toml`), so that they can be published with it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from random import Random

from faasmoe.errors import OptionError
from faasmoe.evaluation.workloads.ask import Ask

TASKS = ("deduction", "cause", "odd", "count", "retell")


def paper(rounds: int = 1, tenants: int = 6, max_tokens: int = 32, seed: int = 0) -> Iterator[Ask]:
    """`rounds` times all tasks of each tenant, whose order is drawn anew in every round.

    Tenants beyond the sixth ask what the first ones do, under names of their own. Raises `OptionError`.
    """
    for name, value in (("rounds", rounds), ("tenants", tenants), ("max_tokens", max_tokens)):
        if value < 1:
            raise OptionError(f"{name} {value}: must be at least 1")
    return _asks(rounds, tenants, max_tokens, Random(seed))


def task_sets() -> dict[str, dict[str, list[str]]]:
    """Tenant to its tasks to their prompts."""
    text = files(__package__).joinpath("tasks.toml").read_text()
    return {tenant["name"]: {task: tenant[task] for task in TASKS} for tenant in tomllib.loads(text)["tenant"]}


def _asks(rounds: int, tenants: int, max_tokens: int, random: Random) -> Iterator[Ask]:
    sets = list(task_sets().items())
    for number in range(rounds):
        order = {tenant: random.sample(TASKS, len(TASKS)) for tenant in range(tenants)}
        for place in range(len(TASKS)):
            for tenant in range(tenants):
                name, tasks = sets[tenant % len(sets)]
                copy = tenant // len(sets)
                prompts = tasks[order[tenant][place]]
                yield Ask(None, f"{name}-{copy}" if copy else name, prompts[number % len(prompts)], max_tokens)
