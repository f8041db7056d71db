"""Options that say what an experiment asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from faasmoe.cli.numeric import MOST_COUNT, MOST_SECONDS, real, whole
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.evaluation.experiment import Workload
    from faasmoe.evaluation.workloads.ask import Ask

Name = Literal["paper", "saturated", "poisson", "bursty"]

WorkloadName = Annotated[Name, typer.Option("--workload", help="Workload, as in docs/evaluation.md.")]
Replay = Annotated[
    Path | None,
    typer.Option(
        help="Recorded requests, instead of drawn ones.", exists=True, dir_okay=False, show_default=False
    ),
]
LEAST_RATE, MOST_RATE = 1e-9, 1e6  # requests a second
MOST_TENANTS = 10_000

Tenants = Annotated[int, whole(1, MOST_TENANTS, help="Number of tenants.")]
Rounds = Annotated[
    int, whole(1, MOST_COUNT, help="Rounds of the `paper` workload, with 5 requests of each tenant.")
]
Rate = Annotated[
    float, real(LEAST_RATE, MOST_RATE, help="Requests a second of the workloads that come by the clock.")
]
Seconds = Annotated[
    float, real(1, MOST_SECONDS, help="Length in seconds of the workloads that come by the clock.")
]
PromptTokens = Annotated[int, whole(1, MOST_COUNT, help="Tokens of prompts that have no text.")]
MaxTokens = Annotated[int, whole(1, MOST_COUNT, help="Tokens of each completion.")]

_MOST_REQUESTS = 1_000_000  # of one trial: they are made before it begins
_A_ROUND = 5  # requests of a tenant under `paper`
_AT_ONCE = 8  # requests of each tenant under `saturated`


@dataclass(frozen=True)
class Requests:
    """A workload of so many tenants, and the settings that it has."""

    workload: Callable[[int], Workload]
    settings: dict[str, str | int | float | None]


def requests(
    name: Name,
    replay: Path | None = None,
    rounds: int = 1,
    rate: float = 0.5,
    seconds: float = 60.0,
    prompt_tokens: int = 64,
    max_tokens: int = 32,
) -> Requests:
    """The requests that the options describe. Raises `OptionError` where a trial's workload has no request."""
    from faasmoe.evaluation.experiment import Workload
    from faasmoe.evaluation.workloads.arrivals import name_of

    settings: dict[str, str | int | float | None] = {
        "rounds": rounds, "rate": rate, "seconds": seconds, "prompt_tokens": prompt_tokens, "max_tokens": max_tokens
    }  # fmt: skip

    clock = name in ("poisson", "bursty") and not replay

    def asks(tenants: int, seed: int) -> Sequence[Ask]:
        expected = rate * seconds if clock else 0 if replay else rounds * _A_ROUND * _parallel(name, tenants)
        if expected > _MOST_REQUESTS:
            which = "--rate and --seconds" if clock else "--rounds and --tenants"
            raise OptionError(f"{which}: make {expected:.0f} requests, and {_MOST_REQUESTS} are the most")
        found = list(_asks(name, replay, tenants, rounds, (rate, seconds), (prompt_tokens, max_tokens), seed))
        if not found:
            raise OptionError(
                f"--workload {name}: has no request with seed {seed}; take a longer time (--seconds) or a higher --rate"
            )
        return found

    def workload(tenants: int) -> Workload:
        names = list(dict.fromkeys(ask.tenant for ask in asks(tenants, 0)))
        if clock:  # not all of them may ask in that time
            names = [name_of(tenant) for tenant in range(tenants)]
        return Workload(str(replay or name), names, partial(asks, tenants), seconds if clock else 0.0)

    return Requests(workload, settings)


@dataclass(frozen=True, kw_only=True)
class PaperParameters:
    """Requests as in the paper."""

    rounds: Rounds = 1
    max_tokens: MaxTokens = 32

    def requests(self) -> Requests:
        """The requests of this workload. Raises as `requests` does."""
        return requests("paper", rounds=self.rounds, max_tokens=self.max_tokens)


@dataclass(frozen=True, kw_only=True)
class ClockParameters:
    """Requests that come by the clock."""

    rate: Rate = 0.5
    seconds: Seconds = 60.0
    prompt_tokens: PromptTokens = 64
    max_tokens: MaxTokens = 32

    def requests(self, name: Name, replay: Path | None, rounds: int = 1) -> Requests:
        """The requests of this workload. Raises as `requests` does."""
        return requests(
            name,
            replay,
            rounds=rounds,
            rate=self.rate,
            seconds=self.seconds,
            prompt_tokens=self.prompt_tokens,
            max_tokens=self.max_tokens,
        )


def _asks(
    name: Name, file: Path | None, tenants: int, rounds: int, pace: tuple[float, float], lengths: tuple[int, int],
    seed: int,
) -> Iterator[Ask]:  # fmt: skip
    from faasmoe.evaluation.workloads.arrivals import bursty, poisson
    from faasmoe.evaluation.workloads.ask import Lengths
    from faasmoe.evaluation.workloads.paper import paper
    from faasmoe.evaluation.workloads.replay import replay

    if file:
        return replay(file)
    if name in ("paper", "saturated"):
        return paper(rounds, _parallel(name, tenants), lengths[1], seed)
    timed: dict[str, Callable[..., Iterator[Ask]]] = {"poisson": poisson, "bursty": bursty}
    return timed[name](tenants, *pace, seed, Lengths(*lengths))


def _parallel(name: Name, tenants: int) -> int:
    """Requests that run at the same time, in closed loop."""
    return tenants * (_AT_ONCE if name == "saturated" else 1)
