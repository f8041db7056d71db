"""What a layer computes of some tokens, given to it in several ways: whole, in parts, one by one, beside others'.

Layers of transformers have a form for a prompt and another for a token, and some take no prompt behind a state. So a
layer is run before it is served, with random inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from faasmoe.errors import UnsupportedModel
from faasmoe.model.dense.recurrent.found_layers import FoundLayer
from faasmoe.model.dense.recurrent.layer_cache import ProbeCache

_TOKENS, _PART = 7, 3
_FAR = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of the norm, for results that round otherwise

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class AcceptedCalls:
    """What a layer can be given, and what it returns."""

    parts: bool  # several tokens behind a state
    batches: bool  # tokens of several sequences at once
    by_token: tuple[int, ...]  # which of its results have a row for each token


def try_layer(found: FoundLayer, forward: Callable[..., Any]) -> AcceptedCalls:
    """Run `forward` of a layer. Raises `UnsupportedModel` if one by one its tokens come to something else."""
    generator = torch.Generator().manual_seed(0)
    one, other = (_inputs(found, generator) for _ in range(2))
    trial = _Trial(found, forward)
    whole = trial.run(ProbeCache(), one)
    by_token = tuple(i for i, result in enumerate(whole) if result.shape[:2] == (1, _TOKENS))
    single = _joined(trial.run_by(ProbeCache(), one, [1] * _TOKENS), by_token)
    reference = [whole[i] for i in by_token]
    if not by_token or not _alike(single, reference):
        raise UnsupportedModel(
            f"{found.name}: its layer ({type(found.module).__name__}) does not compute the same of tokens one by one"
        )
    parts = _joined(trial.run_by(ProbeCache(), one, [_PART, _TOKENS - _PART]), by_token)
    return AcceptedCalls(_alike(parts, reference), trial.batches([one, other], by_token), by_token)


class _Trial:
    def __init__(self, found: FoundLayer, forward: Callable[..., Any]) -> None:
        self._found = found
        self._forward = forward

    def run(self, cache: ProbeCache, tensors: Tensors) -> Tensors:
        args, named = self._found.call.passed(tensors, cache)
        return results_of(self._forward(*args, **named))

    def run_by(self, cache: ProbeCache, tensors: Tensors, counts: Sequence[int]) -> list[Tensors]:
        pieces = zip(*(torch.split_with_sizes(tensor, list(counts), 1) for tensor in tensors), strict=True)
        return [self.run(cache, piece) for piece in pieces]

    def batches(self, sequences: Sequence[Tensors], by_token: Sequence[int]) -> bool:
        """Whether the last tokens of several sequences, in one call, come to the same as in one each."""
        counts = [_TOKENS - 1, 1]
        alone = [self.run_by(ProbeCache(), its, counts)[1] for its in sequences]
        caches = [ProbeCache() for _ in sequences]
        for cache, its in zip(caches, sequences, strict=True):
            self.run(cache, tuple(tensor[:, :-1] for tensor in its))
        tokens = tuple(
            torch.cat([tensor[:, -1:] for tensor in tensors]) for tensors in zip(*sequences, strict=True)
        )
        together = self.run(ProbeCache.joined(caches), tokens)
        return _alike([together[i] for i in by_token], [torch.cat([its[i] for its in alone]) for i in by_token])


def results_of(returned: Any) -> Tensors:
    """The tensors that a layer returns, one or a tuple."""
    return returned if isinstance(returned, tuple) else (returned,)


def _inputs(found: FoundLayer, generator: torch.Generator) -> Tensors:
    """Random inputs of a sequence; what else the layer is given is that of the first token."""
    first, *others = found.call.tensors
    x = torch.randn(1, _TOKENS, *first.shape[2:], generator=generator).to(first.dtype)
    return x, *(tensor.expand(-1, _TOKENS, *tensor.shape[2:]) for tensor in others)


def _joined(pieces: Sequence[Tensors], by_token: Sequence[int]) -> list[Tensor]:
    return [torch.cat([piece[i] for piece in pieces], 1) for i in by_token]


def _alike(results: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    return all(
        got.shape == its.shape and float((got - its).float().norm()) <= _FAR[its.dtype] * float(its.float().norm())
        for got, its in zip(results, wanted, strict=True)
    )
