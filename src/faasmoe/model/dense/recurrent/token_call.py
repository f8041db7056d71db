"""The arguments of a layer's call, whose tensors have a row for each token."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from faasmoe.errors import UnsupportedModel
from faasmoe.model.dense.replay.operation import mapped

_CACHES = ("cache_params", "past_key_values")  # how transformers' layers name the argument


class CallForm:
    """How a layer is called: the names of its arguments, one of which is a cache."""

    def __init__(self, forward: Callable[..., Any], cache: str) -> None:
        self._signature = inspect.signature(forward)
        self.cache = cache

    @classmethod
    def of(cls, module: nn.Module) -> CallForm | None:
        """The signature of a module that takes a cache; None if it takes none."""
        names = inspect.signature(module.forward).parameters
        cache = next((name for name in _CACHES if name in names), None)
        return cls(module.forward, cache) if cache else None

    def call(self, args: Sequence[Any], named: dict[str, Any]) -> TokenCall:
        """The call with these arguments, without its cache."""
        arguments = self._signature.bind(*args, **named).arguments
        arguments.pop(self.cache, None)
        return TokenCall(self, arguments)

    def passed(self, arguments: dict[str, Any], cache: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`arguments` by name, and a cache, as they are passed."""
        everything = {**arguments, self.cache: cache}
        ordered = {name: everything[name] for name in self._signature.parameters if name in everything}
        bound = inspect.BoundArguments(self._signature, ordered)
        return bound.args, bound.kwargs


class TokenCall:
    """A call without its cache. Its tensors are `[B, T, ...]`, the first is the layer's input."""

    def __init__(self, signature: CallForm, arguments: dict[str, Any]) -> None:
        self._signature = signature
        self._arguments = arguments
        found: list[Tensor] = []
        mapped(arguments, found.append)
        self.tensors = tuple(found)

    def check(self, layer: str) -> None:
        """Raises `UnsupportedModel` if a tensor does not have a row for each token of one row of tokens."""
        for tensor in self.tensors:
            if tensor.shape[:2] != self.tensors[0].shape[:2]:
                shapes = f"{list(tensor.shape)} beside an input of {list(self.tensors[0].shape)}"
                raise UnsupportedModel(f"{layer} is given a tensor that has no row for each token: {shapes}")

    def passed(self, tensors: Sequence[Tensor], cache: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other tensors, and with a cache."""
        rest = iter(tensors)
        return self._signature.passed(mapped(self._arguments, lambda _: next(rest)), cache)
