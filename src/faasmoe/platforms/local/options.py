"""Settings of the embedded platform, as they travel to the daemon."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

DEFAULT_KEEP_ALIVE = 60.0
DEFAULT_ZYGOTE_KEEP_ALIVE = 300.0


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """`preload` names modules that the zygote imports before it forks."""

    keep_alive: float = DEFAULT_KEEP_ALIVE  # seconds, for functions that set none
    memory_budget: int | None = None  # bytes for all processes of the pool; None: no limit
    zygote_keep_alive: float = (
        DEFAULT_ZYGOTE_KEEP_ALIVE  # seconds that it and the daemon outlive the last instance
    )
    release_page_cache: bool = False  # drop the weights of a stopped function from the kernel's cache
    preload: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LocalOptions:
        """Raises `TypeError` or `ValueError` on anything else."""
        raw = json.loads(text)
        return cls(**{**raw, "preload": tuple(raw["preload"])})
