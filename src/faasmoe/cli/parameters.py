"""Parameters of commands in groups: a dataclass with a field for each parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from faasmoe.cli.options import (
    BlockSize,
    Dtype,
    KeepAlive,
    MaxModelLen,
    MemoryBudget,
    Quantize,
    ReleasePageCache,
    RopeScalingOption,
)
from faasmoe.cli.platforms import PlatformName, PlatformOptions, platform_options
from faasmoe.platforms import DEFAULT

if TYPE_CHECKING:
    from faasmoe.model.config.rope import RopeScaling
    from faasmoe.platforms.registry import PlatformEntry


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each dataclass among its parameters replaced by the fields of that dataclass, in place.

    Typer makes an option of each field, from its annotation and default, as it does for a parameter. All parameters
    of `command` must be keyword-only.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if kind := groups.get(parameter.name):
            parameters += _fields_of(kind)
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))

    @wraps(command)
    def flat(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _fields_of(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        keyword = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(field.name, keyword, default=default, annotation=hints[field.name])


@dataclass(frozen=True, kw_only=True)
class ServingParameters:
    """Options of `faasmoe serve` and `faasmoe generate` that say how a model is served."""

    block_size: BlockSize = None
    platform: PlatformName = DEFAULT
    platform_option: PlatformOptions = None
    keep_alive: KeepAlive = None
    max_model_len: MaxModelLen = None
    dtype: Dtype = "auto"
    quantize: Quantize = None
    rope_scaling: RopeScalingOption = None
    memory_budget: MemoryBudget = None
    release_page_cache: ReleasePageCache = False

    def platform_options(self, entry: PlatformEntry) -> Any:
        """The options of the platform. Raises `OptionError` as `platforms.platform_options` does."""
        return platform_options(
            entry, self.platform_option, self.keep_alive, self.memory_budget, self.release_page_cache
        )

    def check_types(self) -> None:
        """Raises `OptionError` if `dtype` and `quantize` do not go together, or `rope_scaling` is not known."""
        from faasmoe.model.config.facts import check_types

        check_types(self.dtype, self.quantize)
        self._scaling()

    def _scaling(self) -> RopeScaling | None:
        from faasmoe.model.config.rope import RopeScaling

        return None if self.rope_scaling is None else RopeScaling.parse(self.rope_scaling)

    def check(self, folder: Path, max_tokens: int = 0) -> None:
        """Raises `OptionError` for what the model in `folder` cannot have, by its config alone.

        `max_tokens` is the length of a completion.
        """
        from faasmoe.model.config.facts import ConfigFacts

        ConfigFacts.read(folder, self._scaling()).check(self.block_size, self.max_model_len, max_tokens)
