"""Shared experts run while the routed ones run elsewhere.

Models call the two one after the other, in either order, and neither needs the other's result. So a shared expert
that is called first gives a promise of its result, which is kept once the routed experts have been sent for; one
that is called last finds its result computed in that time. `Overlapped` learns from the probe which of them it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from faasmoe.model.dense.linear.linears import FormatLinear


class LazyTensor:
    """A tensor that is computed when it is first used: by an operator, a function of torch, or an attribute."""

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self._compute = compute
        self._tensor: Tensor | None = None

    def get(self) -> Tensor:
        """The tensor."""
        if self._tensor is None:
            self._tensor = self._compute()
        return self._tensor

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], _: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return function(*_kept(args), **{name: _kept(value) for name, value in (kwargs or {}).items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.get(), name)


def _kept(value: Any) -> Any:
    if isinstance(value, LazyTensor):
        return value.get()
    if isinstance(value, list | tuple):  # some functions take several tensors so
        return [_kept(each) for each in value]
    return value


def _forward_operator(name: str) -> None:
    def apply(self: LazyTensor, *operands: Any) -> Any:
        return getattr(self.get(), name)(*map(_kept, operands))

    setattr(LazyTensor, name, apply)


for _name in ("add", "sub", "mul", "truediv", "matmul", "pow"):
    _forward_operator(f"__{_name}__")
    _forward_operator(f"__r{_name}__")
for _name in ("neg", "getitem"):
    _forward_operator(f"__{_name}__")


class Overlapped(nn.Module):
    """Stands in for a shared expert."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        # whether it is called before the routed experts; None: not known, so nothing is done
        self._first: bool | None = None
        self._calls = 0
        self._probed: Tensor | None = None  # what the probe's routed experts were given
        self._later: LazyTensor | None = None
        # what the routed experts were given, and the result for it
        self._ahead: tuple[Tensor, Tensor] | None = None

    def learn(self, hidden: Tensor) -> None:
        """The probe calls the routed experts with `hidden` `[T, H]` now."""
        if self._calls:
            self._first = True
        else:
            self._probed = hidden

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The shared expert's result, or a `LazyTensor` of it."""
        self._calls += 1
        ahead, self._ahead = self._ahead, None
        if kwargs or len(args) != 1:
            return self.inner(*args, **kwargs)
        (x,) = args
        if self._probed is not None:
            self._first = False if _same_rows(self._probed, x) else None
            self._probed = None
        if ahead is not None and _same_rows(ahead[0], x):
            return ahead[1].reshape(x.shape)
        if self._first:
            self._later = LazyTensor(lambda: self.inner(x))
            return self._later
        return self.inner(x)

    def run(self, hidden: Tensor) -> None:
        """Compute the result now, while the routed experts run on `hidden` `[T, H]`."""
        later, self._later = self._later, None
        if later is not None:
            later.get()
        elif self._first is False:
            self._ahead = (hidden, self.inner(hidden))


def _same_rows(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.numel() == b.numel() and a.dtype == b.dtype


def overlap(block: nn.Module, experts: nn.Module) -> list[Overlapped]:
    """Put an `Overlapped` in the place of every shared expert of an MoE block: a child that has linear layers."""
    stand_ins = []
    for name, child in list(block.named_children()):
        if child is not experts and any(isinstance(inner, nn.Linear | FormatLinear) for inner in child.children()):
            stand_ins.append(Overlapped(child))
            setattr(block, name, stand_ins[-1])
    return stand_ins
