"""Strategies by name, imported by the process that runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

from faasmoe.evaluation.strategies.protocol import Orders, Played
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.model.adapter.light_import import import_transformers

Player = Callable[[Sequence[Ask]], Played]

BASELINE, SHARED_FULL, LOCAL_DISTRIBUTION = "baseline", "shared-full", "local-distribution"
FAASMOE_SHARED, FAASMOE_PRIVATE = "faasmoe-shared", "faasmoe-private"
STRATEGIES = (BASELINE, SHARED_FULL, LOCAL_DISTRIBUTION, FAASMOE_SHARED, FAASMOE_PRIVATE)
LLAMACPP = "llama.cpp"  # of one sequence, for `pressure` alone
ONE_MODEL = "one-model"  # a tenant's part of the baseline
DENSE_PART = "dense-part"  # a tenant's part of local distribution
ROLES = {
    BASELINE: "model",
    FAASMOE_PRIVATE: "gateway",
}  # of a strategy's own process; "orchestrator" of the others

_ENGINE = "faasmoe.evaluation.strategies.engine"
_PLACES = {
    BASELINE: "faasmoe.evaluation.strategies.baseline:serve",
    ONE_MODEL: "faasmoe.evaluation.strategies.baseline:serve_one",
    SHARED_FULL: f"{_ENGINE}:serve",
    LOCAL_DISTRIBUTION: "faasmoe.evaluation.strategies.distribution:serve",
    DENSE_PART: f"{_ENGINE}:serve",
    FAASMOE_SHARED: f"{_ENGINE}:serve",
    LLAMACPP: "faasmoe.evaluation.strategies.llamacpp:serve",
    FAASMOE_PRIVATE: "faasmoe.evaluation.strategies.private:serve",
}


def serve(orders: Orders) -> AbstractContextManager[Player]:
    """The strategy, started. Raises `KeyError` for one that there is not."""
    module, _, name = _PLACES[orders.strategy].partition(":")
    if module == _ENGINE:
        import_transformers()
    function: Any = getattr(import_module(module), name)
    started: AbstractContextManager[Player] = function(orders)
    return started
