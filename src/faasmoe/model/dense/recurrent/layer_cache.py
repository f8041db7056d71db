"""What stands in for transformers' cache in one call of a layer: the calls by which a layer reads and writes its state.

A layer has a convolution's tail and a recurrent tensor, or several of either, which it tells apart by `state_idx`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from faasmoe.model.state.recurrent_state import RecurrentSpec, RecurrentState, StatePart


class LayerCache(ABC):
    """The states of B sequences in one layer, by name, each `[B, ...]`."""

    @abstractmethod
    def read(self, name: str) -> Tensor | None:
        """The state, which the layer may change in place; None before the first token."""

    @abstractmethod
    def write(self, name: str, state: Tensor) -> Tensor:
        """Keep `state` from now on. Returns what is kept."""

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The last inputs of a convolution, `[B, channels, kernel]`; None before the first token."""
        return self.read(f"convolution {state_idx}")

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, conv_kernel_size: int | None = None
    ) -> Tensor:
        """Keep the last inputs of `[B, channels, T]`. Returns them all, behind those that were kept before.

        Without `conv_kernel_size` the first call tells by T how many are kept.
        """
        name = f"convolution {state_idx}"
        before = self.read(name)
        if before is not None:
            inputs, kernel = torch.cat([before, conv_states], -1), before.shape[-1]
        else:
            kernel = conv_kernel_size or conv_states.shape[-1]
            inputs = F.pad(conv_states, (max(0, kernel - conv_states.shape[-1]), 0))
        self.write(name, inputs[..., -kernel:])
        return inputs

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """A recurrent tensor `[B, ...]`; None before the first token."""
        return self.read(f"recurrence {state_idx}")

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0) -> Tensor:
        """Keep `[B, ...]` instead. Returns what is kept."""
        return self.write(f"recurrence {state_idx}", recurrent_states)

    def get_linear_cache(self, layer_idx: int) -> Tensor | None:
        """As `get_recurrent_state`, under another name."""
        return self.read("recurrence 0")

    def set_linear_cache(self, layer_idx: int, linear_cache: Tensor) -> None:
        """As `update_recurrent_state`, under another name."""
        self.write("recurrence 0", linear_cache)

    def is_recording_past(self, layer_idx: int) -> bool:
        """False: states are never taken back."""
        return False

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a layer asks its cache for {name}, which is not served")


class ProbeCache(LayerCache):
    """Takes whatever a layer writes, for sequences that are nobody's, and notes of what kind it is."""

    def __init__(self) -> None:
        self._states: dict[str, Tensor] = {}
        self.attends = False  # the layer has asked it for keys and values

    @classmethod
    def joined(cls, caches: Sequence[ProbeCache]) -> ProbeCache:
        """The states of several sequences in one."""
        cache = cls()
        for name in caches[0]._states:
            cache.write(name, torch.cat([its._states[name] for its in caches]))
        return cache

    @property
    def recurs(self) -> bool:
        """True if the layer has written a state."""
        return bool(self._states)

    def read(self, name: str) -> Tensor | None:
        """See `LayerCache`."""
        return self._states.get(name)

    def write(self, name: str, state: Tensor) -> Tensor:
        """See `LayerCache`."""
        before = self._states.get(name)
        dtype = state.dtype if before is None else torch.promote_types(before.dtype, state.dtype)
        self._states[name] = state.to(dtype, copy=True)
        return self._states[name]

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Keys and values are kept by the attention itself."""
        self.attends = True
        return key, value

    def spec(self) -> RecurrentSpec:
        """The kind of state that was written, for one sequence."""
        return RecurrentSpec(
            tuple(StatePart(name, tuple(state.shape[1:]), state.dtype) for name, state in self._states.items())
        )


class StepCache(LayerCache):
    """The states of sequences that take part in a step, all of which have seen tokens or none of which has."""

    def __init__(self, states: Sequence[RecurrentState], tokens: int) -> None:
        """Each sequence gets `tokens` tokens. Raises `ValueError` if one has no memory for them."""
        self._states = states
        self._empty = not states[0].length
        self._stacked: dict[str, Tensor] = {}
        for state in states:
            state.advance(tokens)

    def read(self, name: str) -> Tensor | None:
        """See `LayerCache`. The tensor of one sequence is its own, those of several are copied."""
        if name in self._stacked:
            return self._stacked[name]
        if self._empty:
            return None
        if len(self._states) == 1:
            return self._states[0].tensors[name][None]
        self._stacked[name] = torch.stack([state.tensors[name] for state in self._states])
        return self._stacked[name]

    def write(self, name: str, state: Tensor) -> Tensor:
        """See `LayerCache`."""
        if len(self._states) == 1:
            own = self._states[0].tensors[name]
            own.copy_(state[0])
            return own[None]
        self._stacked[name] = state
        return state

    def close(self) -> None:
        """Copy what was stacked back to the sequences, once the layer has run."""
        for name, stacked in self._stacked.items():
            for state, its in zip(self._states, stacked, strict=True):
                state.tensors[name].copy_(its)
