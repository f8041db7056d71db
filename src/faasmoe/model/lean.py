"""transformers without torch's compiler and without its distribution over machines, which serving never uses.

transformers brings them in for a few marks on functions ("do not compile this") and for types of tensors that lie on
several machines: 1.6 of the 5.3 seconds in which a process has loaded the demo model, and 71 MB of its own 315
(`python -m benchmarks.imports`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_INDEXING = f"{_COMPILER}._trace_wrapped_higher_order_op"
# What models import of transformers, and what in turn imports the compiler. `core_model_loading` has the types.
_MODULES = ("core_model_loading", "modeling_utils", "masking_utils", "modeling_layers", "generation.utils")


def import_transformers() -> None:
    """Import the part of transformers that models need, without torch's compiler.

    For the start of processes of our own, before anything else imports transformers: it believes from then on that
    torch was built without distribution. Does nothing if it is there already.
    """
    if "transformers.modeling_utils" in sys.modules or _COMPILER in sys.modules:
        return
    import torch  # noqa: F401, PLC0415 - takes seconds, and marks its modules as imported

    with _without_compiler(), _without_distribution():
        for module in _MODULES:
            import_module(f"transformers.{module}")


@contextmanager
def without_values() -> Iterator[None]:
    """For building a model that takes no memory: what is not filled in yet lies on the meta device.

    Initial values of weights are not computed, and weights are not tied: whoever builds the model does that. All else
    is computed, since torch's kernels for the meta device are partly written in Python, and bring the compiler.
    """
    import torch  # noqa: PLC0415
    from transformers.initialization import no_init_weights  # noqa: PLC0415

    empty = torch.empty

    def hollow(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        return empty(*args, device="meta" if device is None else device, **kwargs)

    torch.empty = hollow
    try:
        # within transformers' own meta device, if it builds the model
        with torch.device("cpu"), no_init_weights():
            yield
    finally:
        torch.empty = empty


@contextmanager
def _without_compiler() -> Iterator[None]:
    """While this is entered, what the compiler has to offer is nothing but marks."""
    import torch  # noqa: PLC0415

    compiler, indexing = ModuleType(_COMPILER), ModuleType(_INDEXING)
    for mark in ("allow_in_graph", "assume_constant_result", "disable"):
        setattr(compiler, mark, _unmarked)
    indexing.TransformGetItemToIndex = _index_with_tensors  # type: ignore[attr-defined]
    standing_in = {_COMPILER: compiler, _INDEXING: indexing}
    sys.modules.update(standing_in)
    torch._dynamo = compiler
    try:
        yield
    finally:  # whoever needs the compiler after all imports it
        del torch._dynamo
        for name in standing_in:
            del sys.modules[name]


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
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex  # noqa: PLC0415

    return TransformGetItemToIndex()
