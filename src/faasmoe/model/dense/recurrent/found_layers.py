"""Finds the layers of a model that keep a recurrent state, by running the model.

Every layer that takes a cache gets one of its own, which notes what the layer does with it. Modules that say
`notes_state`, stand-ins such as indexers', and what is in them are left alone: they note their state themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import nn

from faasmoe.model.dense.recurrent.layer_cache import ProbeCache
from faasmoe.model.dense.recurrent.token_call import CallForm, TokenCall


@dataclass(frozen=True, slots=True)
class FoundLayer:
    """A module that was called with a cache."""

    name: str
    module: Any
    signature: CallForm
    call: TokenCall  # of one token
    cache: ProbeCache  # as the call has left it

    @property
    def layer(self) -> int:
        """The layer of the model that it is in."""
        return int(self.module.layer_idx)


class FoundLayers:
    """In its context the model runs once, with one token."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooks = ExitStack()
        self._found: dict[str, FoundLayer] = {}

    def __enter__(self) -> FoundLayers:
        elsewhere = {
            below
            for module in self._model.modules()
            if getattr(module, "notes_state", False)
            for below in module.modules()
        }
        for name, module in self._model.named_modules():
            if module in elsewhere:
                continue
            if isinstance(getattr(module, "layer_idx", None), int) and (signature := CallForm.of(module)):
                hook = _Hook(self._found, name, signature)
                self._hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._hooks.close()

    @property
    def recurrent(self) -> list[FoundLayer]:
        """Those that have kept a state, in the order of their calls."""
        return [found for found in self._found.values() if found.cache.recurs]

    @property
    def attending(self) -> Iterator[int]:
        """Layers that have asked for keys and values."""
        return (found.layer for found in self._found.values() if found.cache.attends)


class _Hook:
    """Gives a module a cache of its own."""

    def __init__(self, found: dict[str, FoundLayer], name: str, signature: CallForm) -> None:
        self._found = found
        self._name = name
        self._signature = signature

    def __call__(self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        cache, call = ProbeCache(), self._signature.call(args, named)
        self._found[self._name] = FoundLayer(self._name, module, self._signature, call, cache)
        return call.passed(call.tensors, cache)
