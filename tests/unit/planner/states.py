"""Sizes of states that tests choose."""

from __future__ import annotations

import torch

from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import StateSpec


def keeps(a_token: int) -> StateSpec:
    """A layer in which a token takes half of `a_token` bytes, and as many again while the cache grows."""
    return StateSpec({0: KVCacheSpec(1, a_token // 8, a_token // 8, torch.bfloat16, torch.bfloat16)})
