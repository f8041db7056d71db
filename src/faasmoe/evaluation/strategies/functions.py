"""The platform that a strategy's functions run on, as its orders have it."""

from __future__ import annotations

from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.experts import PRELOAD
from faasmoe.platforms.base import Platform
from faasmoe.platforms.registry import find, start


def start_platform(orders: Orders, **options: object) -> Platform:
    """A pool of its own; `options` take precedence over the orders. Raises `OptionError` or `PlatformError`."""
    own = find(orders.platform).read(orders.platform_option)
    ordered = {"keep_alive": orders.keep_alive, "memory_budget": orders.memory_budget} | options
    given = {name: value for name, value in ordered.items() if value is not None}
    return start(orders.platform, PRELOAD, **given, **own)
