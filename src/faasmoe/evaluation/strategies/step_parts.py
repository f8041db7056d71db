"""Where the time of an engine's steps goes."""

from __future__ import annotations

from collections.abc import Mapping


def parts_of_steps(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each part of the steps, from what an engine and its dispatch have counted.

    `dense` is everything of the model but the routed experts; `transfer` what a layer's calls take beyond waiting at
    instances and computing there: sending, waking, and waiting for a core.
    """
    invoked = seconds["pack"] + seconds["invoke"] + seconds["combine"]
    return {
        "dense": seconds["forward"] - invoked,
        "routing": seconds["route"],
        "packing": seconds["pack"] - seconds["route"],
        "transfer": max(0.0, seconds["invoke"] - seconds["queue"] - seconds["compute"]),
        "queue": seconds["queue"],
        "compute": seconds["compute"],
        "combine": seconds["combine"],
        "sampling": seconds["sample"],
        "scheduling": seconds["schedule"],
        "accounting": seconds["account"],
    }
