"""The constants of planning."""

from __future__ import annotations

from dataclasses import dataclass

from faasmoe.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPolicy:
    """When a function has replicas, and when moving pays. Raises `OptionError` for what makes no sense."""

    hot: float = 2.0  # load of one replica over the mean of its layer's functions, from which it gets another one
    cold: float = (
        0.7  # share of `hot` below which a replica goes again, so that none comes and goes with the noise
    )
    replica_memory: float = (
        0.125  # bytes of replicas over those of all functions (DeepSeek-V3: 32 for 256 experts)
    )
    gain: float = 0.05  # share by which the time of a layer, or of all, must fall for anything to move
    worth: float = 0.75  # and share by which it must fall for each share of its functions' bytes that moves

    def __post_init__(self) -> None:
        if self.hot < 1:
            raise OptionError(f"hot is {self.hot}; it must be 1 or more, the mean of a layer")
        if not 0 < self.cold <= 1:
            raise OptionError(f"cold is {self.cold}; it must be more than 0 and at most 1")
        if not 0 <= self.gain < 1:
            raise OptionError(f"gain is {self.gain}; it must be 0 or more, and less than 1")
        if self.replica_memory < 0 or self.worth < 0:
            raise OptionError(
                f"replica_memory is {self.replica_memory} and worth {self.worth}; they must be 0 or more"
            )
