"""Options of the embedded platform, and their form on the daemon's command line."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field

from faasmoe.errors import OptionError
from faasmoe.platforms.base import DEFAULT_KEEP_ALIVE

DEFAULT_ZYGOTE_KEEP_ALIVE = 300.0


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """Options of a pool. `preload` names modules that the zygote imports before it forks.

    Raises `OptionError` naming the option if a value is out of range.
    """

    keep_alive: float = DEFAULT_KEEP_ALIVE  # seconds, for functions that set none; infinity: they stay
    memory_budget: int | None = None  # bytes for all processes of the pool; None: no limit
    zygote_keep_alive: float = field(
        default=DEFAULT_ZYGOTE_KEEP_ALIVE,
        metadata={"help": "Seconds that the daemon and the zygote outlive the last instance; inf: they stay."},
    )
    release_page_cache: bool = False  # drop the weights of a stopped function from the kernel's cache
    preload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("keep_alive", "zygote_keep_alive"):
            if not getattr(self, name) >= 0:  # so that NaN is refused
                raise OptionError(f"{name} is {getattr(self, name)}: must be at least 0 seconds, or inf")
        if self.memory_budget is not None and not 1 <= self.memory_budget <= sys.maxsize:
            raise OptionError(f"memory_budget is {self.memory_budget}: must be 1 to {sys.maxsize} bytes")

    def to_json(self) -> str:
        """The options as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LocalOptions:
        """The options of `to_json`'s text. Raises `TypeError`, `ValueError` or `OptionError` for another text."""
        raw = json.loads(text)
        return cls(**{**raw, "preload": tuple(raw["preload"])})
