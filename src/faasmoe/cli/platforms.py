"""The choice of a platform and its options, which several commands share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.platforms.registry import PlatformEntry

log = logging.getLogger(__name__)

_FUNCTIONS_SHARE = 0.6  # of the memory that a control group leaves; the KV cache has 0.2, the dense part the rest

PlatformName = Annotated[
    str,
    typer.Option(
        "--platform",
        metavar="NAME",
        help="Platform that runs functions: local, nodes, inline, or one that a package brings.",
    ),
]
PlatformOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--platform-option",
        metavar="NAME=VALUE",
        help="Option that only this platform has, as listed below; may be repeated.",
        show_default=False,
    ),
]


class PlatformCommand(TyperCommand):
    """A command with `PlatformOptions`, whose help ends with those of all platforms that are installed."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the list, if there is anything to list."""
        super().format_epilog(ctx, formatter)
        if rows := own_options():
            with formatter.section("Values of --platform-option"):
                formatter.write_dl(rows)


def own_options() -> list[tuple[str, str]]:
    """NAME=DEFAULT and help text of each platform's own options; for a platform that is broken, the error."""
    from faasmoe.platforms import registry
    from faasmoe.platforms.options import own_options as own

    rows = []
    for name in registry.names():
        try:
            entry = registry.find(name)
        except OptionError as error:
            rows.append((name, str(error)))
            continue
        rows += [(f"{each.name}={each.default}", f"{name}: {each.help}") for each in own(entry.options)]
    return rows


def platform_options(
    entry: PlatformEntry,
    own: Sequence[str] | None,
    keep_alive: float | None,
    memory_budget: int | None,
    release_page_cache: bool = False,
) -> Any:
    """The platform's options, of which `own` are given by --platform-option.

    Without a budget, functions get a part of the memory that the control group leaves. Raises `OptionError` for an
    option that is given and that the platform does not take, and for a value out of range.
    """
    from faasmoe.util import machine

    if memory_budget is None and entry.takes("memory_budget") and machine.memory_is_limited():
        memory_budget = int(_FUNCTIONS_SHARE * machine.available_memory())
        log.info("functions have %d MiB, a part of what the control group leaves; --memory-budget gives them more "
                 "or less", memory_budget >> 20)  # fmt: skip
    return entry.parse(given_options(keep_alive, memory_budget, release_page_cache) | entry.read(own or ()))


def given_options(
    keep_alive: float | None, memory_budget: int | None, release_page_cache: bool = False
) -> dict[str, object]:
    """The options common to all platforms, without those that the user has not given."""
    options = {
        "keep_alive": keep_alive,
        "memory_budget": memory_budget,
        "release_page_cache": release_page_cache or None,
    }
    return {name: value for name, value in options.items() if value is not None}
