"""transformers without torch's compiler and without its distribution over machines, which serving never uses.

transformers brings them in for a few marks on functions ("do not compile this") and for types of tensors that lie on
several machines: 1.6 of the 5.3 seconds in which a process has loaded the demo model, and 71 MB of its own 315
(`python -m benchmarks.imports`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

from faasmoe.model.adapter.exports import exports_kept

_COMPILER = "torch._dynamo"
_STANDS_IN = "stands_in"  # attribute of a module that is not torch's
_LARGE = 1 << 16  # numbers, of which an uninteresting value is not worth the memory
_FACTORIES = {"empty": 0, "zeros": _LARGE, "ones": _LARGE, "rand": _LARGE, "randn": _LARGE, "full": _LARGE}
_INDEXING = f"{_COMPILER}._trace_wrapped_higher_order_op"
# What models import of transformers, and what in turn imports the compiler. `core_model_loading` has the types.
_MODULES = ("core_model_loading", "modeling_utils", "masking_utils", "modeling_layers", "generation.utils")


def import_transformers(exports: Path | None = None) -> None:
    """Import the part of transformers that models need, without torch's compiler.

    For the start of processes of our own, before anything else imports transformers: it believes from then on that
    torch was built without distribution. Does nothing if it is there already. `exports` is a file in which processes
    leave for the next one what transformers exports (`model.adapter.exports`).
    """
    if "transformers.modeling_utils" in sys.modules or _COMPILER in sys.modules:
        return
    import torch  # noqa: F401, PLC0415 - takes seconds, and marks its modules as imported

    kept = exports_kept(exports) if exports else nullcontext()
    with without_compiler(), _without_distribution(), kept:
        for module in _MODULES:
            import_module(f"transformers.{module}")


@contextmanager
def without_values() -> Iterator[None]:
    """In this context a model can be built that takes no memory: its weights lie on the meta device.

    Initial values of weights are not computed, and weights are not tied; the caller does that. Tensors without values
    are on the meta device, and so are large tensors of one number or of random ones, of which some classes make
    parameters. All other tensors are computed, since torch's kernels for the meta device are partly written in Python,
    and import the compiler.
    """
    import torch  # noqa: PLC0415
    from transformers.initialization import no_init_weights  # noqa: PLC0415

    whole = {name: getattr(torch, name) for name in _FACTORIES}
    for name, least in _FACTORIES.items():
        setattr(torch, name, _hollow(whole[name], whole["empty"], least))
    try:
        # within transformers' own meta device, if it builds the model
        with torch.device("cpu"), no_init_weights():
            yield
    finally:
        for name, factory in whole.items():
            setattr(torch, name, factory)


def _hollow(factory: Callable[..., Any], empty: Callable[..., Any], least: int) -> Callable[..., Any]:
    """`factory` that makes tensors of `least` and more numbers by `empty` on the meta device."""

    def hollow(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        size, rest = _split(kwargs.pop("size", None), args)
        if device is not None or prod(size) < least:
            return factory(size, *rest, device=device, **kwargs)
        like = factory((0,), *rest, **kwargs)  # it knows its dtype
        return empty(size, dtype=like.dtype, requires_grad=like.requires_grad, device="meta")

    return hollow


def _split(size: Any, args: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """The size in the arguments of a factory (by name, as one argument or as several), and the other arguments."""
    if size is not None:
        return tuple(size), args
    if args and not hasattr(args[0], "__index__"):
        return tuple(args[0]), args[1:]
    return args, ()


@contextmanager
def without_compiler() -> Iterator[None]:
    """In this context torch's compiler is a module of decorators that do nothing, unless it is there already.

    torch imports it also for the first operation on the meta device, to mark it: two seconds of a slow core.
    """
    import torch  # noqa: PLC0415

    if _COMPILER in sys.modules:
        yield
        return
    compiler, indexing = ModuleType(_COMPILER), ModuleType(_INDEXING)
    for mark in ("allow_in_graph", "assume_constant_result", "disable"):
        setattr(compiler, mark, _unmarked)
    indexing.TransformGetItemToIndex = _index_with_tensors  # type: ignore[attr-defined]
    standing_in = {_COMPILER: compiler, _INDEXING: indexing}
    for module in standing_in.values():
        setattr(module, _STANDS_IN, True)
    sys.modules.update(standing_in)
    torch._dynamo = compiler
    try:
        yield
    finally:  # whoever needs the compiler after all imports it, or has done so meanwhile
        _remove(standing_in)


def _remove(standing_in: dict[str, ModuleType]) -> None:
    import torch  # noqa: PLC0415

    for name, module in standing_in.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
        if name == _COMPILER and getattr(torch, "_dynamo", None) is module:
            del torch._dynamo


@contextmanager
def _without_distribution() -> Iterator[None]:
    import torch  # noqa: PLC0415

    is_available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = is_available


def _unmarked(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """A decorator, with or without arguments, that leaves a function as it is."""
    return _unmarked if function is None else function


def _index_with_tensors() -> AbstractContextManager[Any]:
    """The compiler's mode for masks that are made by `vmap`, from the compiler itself: few models' masks need it."""
    _remove({name: module for name, module in sys.modules.items() if getattr(module, _STANDS_IN, False)})
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex  # noqa: PLC0415

    return TransformGetItemToIndex()
