"""What attention does with the keys and values that its layer's states keep, which a boundary leaves to one class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from faasmoe.model.dense import decode_kernel
from faasmoe.model.dense.decode_kernel import Decode, Rule
from faasmoe.model.dense.replay.operation import Row
from faasmoe.model.dense.whole import attend
from faasmoe.model.state.kv_cache import Place


class PlacedDecode(Protocol):
    """One new token of each of several sequences, by a compiled kernel on given memory."""

    def place(self, places: list[Place]) -> None:
        """Store what the tokens leave at these places from now on."""

    def run(self) -> None:
        """Store it, and attend to all."""

    @property
    def row(self) -> Row:
        """What `run` does, as a step."""


class Heads(Protocol):
    """How a layer's queries attend to what its states keep."""

    def supports(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether a compiled kernel takes single tokens of these, `[1, heads, T, dim]`."""

    def decode(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> PlacedDecode:
        """One token of each of T sequences, of which `supports` takes these. `out` is `[1, T, heads, value_dim]`."""

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, selected: Tensor | None) -> Tensor:
        """`query` `[heads, n, dim]`, the last n positions of what is kept, to `[heads, n, value_dim]`.

        `selected` `[n, topk]`: see `whole.attend`.
        """

    def empty(self, query: Tensor, value: Tensor) -> Tensor:
        """Memory for what comes of a row's queries and values, `[1, T, heads, value_dim]`."""


@dataclass(frozen=True, slots=True)
class PlainHeads:
    """Attends to keys and values as they are kept (`Heads`)."""

    rule: Rule

    def supports(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """See `Heads`."""
        return decode_kernel.supports(query, key, value)

    def decode(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> Decode:
        """See `Heads`."""
        return Decode(query.shape[2], query, key, value, out, self.rule)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, selected: Tensor | None) -> Tensor:
        """See `Heads`."""
        return attend(query, keys, values, self.rule, selected)

    def empty(self, query: Tensor, value: Tensor) -> Tensor:
        """See `Heads`."""
        return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def attend_apart(
    heads: Heads, query: Tensor, keys: Tensor, values: Tensor, selected: Tensor | None = None
) -> Tensor:
    """As `Heads.attend`, one token after the other."""
    count = query.shape[1]
    answers = []
    for i in range(count):
        end = keys.shape[1] - count + i + 1
        its = None if selected is None else selected[i : i + 1]
        answers.append(heads.attend(query[:, i : i + 1], keys[:, :end], values[:, :end], its))
    return torch.cat(answers, 1)


def decode(places: Sequence[Place], heads: Heads, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Store n sequences' new tokens at their `places`. Returns the attention to all, as transformers wants it."""
    query, key, value = (each if each.stride(3) == 1 else each.contiguous() for each in (query, key, value))
    out = heads.empty(query, value)
    task = heads.decode(query, key, value, out)
    task.place(list(places))
    task.run()
    return out
