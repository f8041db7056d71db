"""Platforms by name: those of this package, and those that other packages bring as entry points of `GROUP`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from faasmoe.errors import OptionError, brief
from faasmoe.platforms.base import Demand, Instance, Overheads, Platform
from faasmoe.platforms.options import read_own
from faasmoe.platforms.orchestrator_nodes import OrchestratorNodes

GROUP = "faasmoe.platforms"
_BUILT_IN = {
    "local": "faasmoe.platforms.local.entry:ENTRY",
    "inline": "faasmoe.platforms.inline.entry:ENTRY",
    "nodes": "faasmoe.platforms.nodes.entry:ENTRY",
    "ray": "faasmoe.platforms.ray.entry:ENTRY",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformEntry:
    """A platform that can be chosen by name.

    `options` is a dataclass of the options that the platform takes, all with defaults, whose constructor raises
    `OptionError` for a value out of range. The command line has an option for each of `platforms.options.COMMON`;
    `--platform-option` gives the others, if they have a help text (`metadata={"help": ...}`).

    `start(options, preload)` starts a pool of functions and returns its owner; instances may import the modules
    `preload` before they load a function. `connect(address)` uses the pool of another process whose `Platform.address`
    this is; None: only the process that started a pool can use it. `running(options)` finds the addresses of this
    user's pools; None: users must name them.
    """

    name: str
    options: type[Any]
    start: Callable[[Any, Sequence[str]], Platform]
    connect: Callable[[str], Platform] | None = None
    running: Callable[[Any], Sequence[str]] | None = None
    process: Callable[[Instance], int] | None = None  # process id, on this machine; None: instances run elsewhere
    nodes: Callable[[Any], OrchestratorNodes | None] | None = (
        None  # of a started pool, if they may run orchestrators
    )
    wake: Callable[[str], object] | None = None  # tells a pool that calls will come soon; must not wait
    check: Callable[[Demand], object] | None = None  # see `check_demand`
    overheads: Overheads = field(default_factory=Overheads)

    def takes(self, option: str) -> bool:
        """Whether the platform has an option of that name."""
        return option in {each.name for each in fields(self.options)}

    def read(self, given: Sequence[str]) -> dict[str, object]:
        """Values of the platform's own options, each given as NAME=VALUE. Raises `OptionError`."""
        return read_own(self.name, self.options, given)

    def parse(self, given: Mapping[str, object]) -> Any:
        """The options object. Raises `OptionError` for an option that the platform lacks or a value out of range."""
        for option in given:
            if not self.takes(option):
                raise OptionError(f"--platform {self.name}: does not take --{option.replace('_', '-')}")
        try:
            return self.options(**given)
        except OptionError as error:
            raise OptionError(f"--platform {self.name}: {error}") from error

    def check_demand(self, demand: Demand) -> None:
        """Have the platform log limits that are too low for `demand`. Raises `OptionError` if nothing can be served."""
        if self.check is not None:
            self.check(demand)

    def require_connect(self, needed_by: str) -> Callable[[str], Platform]:
        """`connect`. Raises `OptionError` if other processes cannot use the platform's functions."""
        if self.connect is None:
            raise OptionError(
                f"--platform {self.name}: only the process that starts its functions can call them, "
                f"and {needed_by} calls them from several"
            )
        return self.connect


def names() -> list[str]:
    """The names of all installed platforms."""
    return sorted({*_BUILT_IN, *entry_points(group=GROUP).names})


@cache
def find(name: str) -> PlatformEntry:
    """The platform of that name. A built-in one cannot be replaced by a package.

    Raises `OptionError` if there is none, or if the package that brings it cannot be imported.
    """
    if place := _BUILT_IN.get(name):
        module, _, attribute = place.partition(":")
        entry: PlatformEntry = getattr(import_module(module), attribute)
        return entry
    for point in entry_points(group=GROUP, name=name):
        return _loaded(point)
    raise OptionError(f"--platform {name}: must be one of {', '.join(names())}")


def start(name: str, preload: Sequence[str], **given: object) -> Platform:
    """Start a pool of the platform of that name, with the options `given`. Raises `OptionError` or `PlatformError`."""
    entry = find(name)
    return entry.start(entry.parse(given), preload)


def wake(name: str, address: str) -> None:
    """Tell the pool at `address` that calls will come soon. Does not wait."""
    if told := find(name).wake:
        told(address)


def _loaded(point: EntryPoint) -> PlatformEntry:
    package = point.dist.name if point.dist else point.module
    try:
        entry = point.load()
    except Exception as error:
        cause = f"{type(error).__name__}: {brief(error)}"
        raise OptionError(f"--platform {point.name}: package {package} cannot be imported: {cause}") from error
    if not isinstance(entry, PlatformEntry):
        raise OptionError(f"--platform {point.name}: {point.value} of package {package} is not a PlatformEntry")
    return entry
