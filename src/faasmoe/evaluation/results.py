"""The file of results: raw samples, and the settings of their runs.

The file is one JSON object, `Results`. What is said of it is computed from it (`FIGURES`, `claims`, `compare`).
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import msgspec
import psutil

from faasmoe import __version__
from faasmoe.errors import OptionError
from faasmoe.evaluation.meters.meter import MeasuredUsage, integral
from faasmoe.evaluation.statistics import percentiles
from faasmoe.evaluation.strategies.protocol import Answered

FORMAT = 1
_MOST_UNSEEN = 0.1  # share of answers whose tokens came at once, beyond which nothing is said of single tokens
_LIBRARIES = ("torch", "transformers", "numpy")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One trial of one strategy."""

    experiment: str
    strategy: str
    workload: str
    trial: int
    tenants: int
    settings: dict[str, str | int | float | None]
    usage: MeasuredUsage
    requests: list[Answered]
    invocations: int = 0
    cold_starts: int = 0
    extrapolated: bool = False  # fewer tenants were run than `tenants` says
    measured_tenants: int | None = None  # how many, if so; memory is taken to grow in proportion
    steps: int = 0  # of the engine
    phases: dict[str, float] = {}  # part of a step to its seconds in all steps
    cold_start_phases: dict[str, tuple[int, float]] = {}  # part of a cold start to how many and their seconds
    instances: int = 0  # that were there at the end
    memory_limit: int | None = None  # bytes that it could use, page cache included; None: no limit
    memory_charged: int | None = None  # most bytes that it did use, counted like that

    @property
    def growth(self) -> float:
        """The factor from the measured memory to that of `tenants`."""
        return self.tenants / self.measured_tenants if self.measured_tenants else 1.0

    @property
    def tokens(self) -> int:
        """Completion tokens of all responses."""
        return sum(request.tokens for request in self.requests)


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A case that could not run, and the reason."""

    experiment: str
    strategy: str
    workload: str
    tenants: int
    settings: dict[str, str | int | float | None]
    reason: str


def this_machine() -> dict[str, str | int]:
    """The machine's facts that figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "cpu": next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": sys.version.split()[0],
    }


def versions() -> dict[str, str]:
    """The versions of libraries that figures depend on."""
    return {name: version(name) for name in _LIBRARIES}


class Results(msgspec.Struct, kw_only=True):
    """A file of them."""

    command: list[str]
    model: str
    model_bytes: int
    runs: list[Run] = msgspec.field(default_factory=list)
    left_out: list[LeftOut] = msgspec.field(default_factory=list)
    commands: list[list[str]] = msgspec.field(default_factory=list)  # all that have added to it
    format: int = FORMAT
    faasmoe: str = __version__
    created: str = msgspec.field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = msgspec.field(default_factory=versions)
    machine: dict[str, str | int] = msgspec.field(default_factory=this_machine)

    def check_origin(self, file: Path) -> None:
        """Raises `OptionError` if they come from another processor or other libraries: figures would be mixed."""
        for what, theirs, ours in (
            ("a machine", self.machine, this_machine()),
            ("software", self.versions, versions()),
        ):
            for name in ours.keys() - {"kernel", "memory_bytes"}:  # an update or a restart changes these
                if theirs.get(name) != ours[name]:
                    raise OptionError(
                        f"--out {file}: holds results of {what} with {name} {theirs.get(name)}, not {ours[name]}; "
                        "take another file"
                    )

    def save(self, file: Path) -> None:
        """Whole or not at all."""
        new = file.with_name(f"{file.name}.new")
        new.write_bytes(msgspec.json.encode(self))
        new.replace(file)

    @classmethod
    def load(cls, file: Path) -> Results:
        """Raises `OptionError` if the file is none of this format."""
        try:
            results = msgspec.json.decode(file.read_bytes(), type=cls)
        except OSError as error:
            raise OptionError(f"{file}: cannot be read: {error.strerror or error}") from error
        except msgspec.DecodeError as error:
            raise OptionError(f"{file}: holds no results of an evaluation: {error}") from error
        if results.format != FORMAT:
            raise OptionError(f"{file}: is of format {results.format}, this version reads {FORMAT}")
        return results


def memory_mean(run: Run) -> float:
    """Bytes of all processes, averaged over time."""
    return run.growth * sum(run.usage.mean.values())


def memory_peak(run: Run) -> float:
    """Most bytes of all processes together."""
    return run.growth * max(run.usage.total)


def page_cache_mean(run: Run) -> float:
    """Bytes of weights that the kernel kept of files, averaged over time. Raises `ValueError` if it does not tell."""
    columns, times = [column for column in run.usage.resident.values() if column], run.usage.resident_times
    if not columns:
        raise ValueError("the page cache was not measured")
    seconds = times[-1] - times[0]
    return sum(integral(times, column) / seconds if seconds else fmean(column) for column in columns)


def gb_seconds(run: Run) -> float:
    """10^9 bytes times seconds, of all processes."""
    return run.growth * sum(run.usage.gb_seconds.values())


def cpu_per_token(run: Run) -> float:
    """Seconds of CPU time for each completion token."""
    return sum(run.usage.cpu_seconds.values()) / run.tokens


def _measured(run: Run) -> Run:
    """Raises `ValueError` if fewer tenants were run: what they have to share with each other is not known then."""
    if run.extrapolated:
        raise ValueError("only memory and CPU time of a token can be extrapolated")
    return run


def throughput(run: Run) -> float:
    """Completion tokens a second. Raises `ValueError` for a run that is extrapolated, as all figures of time do."""
    return run.tokens / _measured(run).usage.seconds


def _ends(run: Run) -> Sequence[float]:
    return [request.end - request.asked for request in _measured(run).requests if request.end is not None]


def _seen(run: Run) -> Sequence[Answered]:
    """Requests of which it is known when their tokens came. Raises `ValueError` if that is not so of nearly all.

    Engines tell of tokens when there is text, and in a checkpoint of random weights hardly any token stands for some.
    """
    ended = [request for request in _measured(run).requests if request.end is not None]
    seen = [request for request in ended if request.first is not None]
    at_once = [request for request in seen if request.tokens > 1 and request.first == request.end]
    if len(at_once) > _MOST_UNSEEN * len(ended):
        raise ValueError(f"of {len(at_once)} of {len(ended)} answers all tokens came at once, with the end")
    return seen


def _firsts(run: Run) -> Sequence[float]:
    return [request.first - request.asked for request in _seen(run) if request.first is not None]


def _each(run: Run) -> Sequence[float]:
    return [
        (request.end - request.first) / (request.tokens - 1)
        for request in _seen(run)
        if request.end is not None and request.first is not None and request.tokens > 1
    ]


def _share(samples: Callable[[Run], Sequence[float]], share: float) -> Callable[[Run], float]:
    return lambda run: percentiles(samples(run), (share,))[f"p{share * 100:g}"]


# Figures of a run, by name. Seconds, bytes, 10^9 bytes times seconds, tokens a second.
FIGURES: dict[str, Callable[[Run], float]] = {
    "memory_mean_bytes": memory_mean,
    "memory_peak_bytes": memory_peak,
    "page_cache_bytes": page_cache_mean,
    "gb_seconds": gb_seconds,
    "cpu_percent": lambda run: _measured(run).usage.cpu_percent,
    "cpu_seconds_per_token": cpu_per_token,
    "tokens_per_second": throughput,
    "invocations_per_token": lambda run: run.invocations / run.tokens,
    "cold_starts": lambda run: float(run.cold_starts),
    **{
        f"{name}_p{share * 100:g}": _share(samples, share)
        for name, samples in {"first_token": _firsts, "token": _each, "end_to_end": _ends}.items()
        for share in (0.5, 0.95, 0.99)
    },
}
