"""Options that a platform has of its own, as `--platform-option NAME=VALUE` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import msgspec

from faasmoe.errors import OptionError

COMMON = ("keep_alive", "memory_budget", "release_page_cache")  # options of the command line for all platforms


@dataclass(frozen=True, slots=True)
class OwnOption:
    """A field of a platform's options that has a help text."""

    name: str
    type: Any  # that `msgspec` converts a text to, or whose constructor does
    default: object
    help: str

    def read(self, text: str) -> object:
        """The value that `text` stands for. Raises `OptionError`."""
        try:
            return msgspec.convert(text, self.type, strict=False, dec_hook=lambda kind, given: kind(given))
        except msgspec.ValidationError as error:
            wanted = str(error).partition(", got ")[0].removeprefix("Expected ").replace("`", "")
            raise OptionError(f"--platform-option {self.name}={text}: must be of type {wanted}") from error


def own_options(options: type[Any]) -> list[OwnOption]:
    """Those of the dataclass `options`: fields with `metadata={"help": ...}`, but for `COMMON`."""
    types, defaults = get_type_hints(options, include_extras=True), options()
    return [
        OwnOption(field.name, types[field.name], getattr(defaults, field.name), field.metadata["help"])
        for field in fields(options)
        if "help" in field.metadata and field.name not in COMMON
    ]


def read_own(platform: str, options: type[Any], given: Sequence[str]) -> dict[str, object]:
    """The values of each NAME=VALUE in `given`, by name. Raises `OptionError` naming the option and what is right."""
    own, values = {each.name: each for each in own_options(options)}, dict[str, object]()
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--platform-option {text}: must be NAME=VALUE")
        if name in COMMON:
            raise OptionError(f"--platform-option {text}: must be given as --{name.replace('_', '-')}")
        if name not in own:
            known = ", ".join(own) or "none"
            raise OptionError(f"--platform-option {text}: the options of platform {platform} are: {known}")
        if name in values:
            raise OptionError(f"--platform-option {text}: {name} is given twice")
        values[name] = own[name].read(value)
    return values
