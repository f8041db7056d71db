from __future__ import annotations

import pytest
import torch

from faasmoe.errors import UnsupportedModel
from faasmoe.model.architecture import inspect_architecture
from faasmoe.model.dense.rehearsal import rehearse
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.recurrent_state import RecurrentSpec, StatePart
from tests.tiny import tiny_config


def test_what_each_layer_keeps_is_known_without_weights() -> None:
    state = rehearse(inspect_architecture(tiny_config("qwen3_next")), torch.bfloat16)
    recurrent = RecurrentSpec(
        (
            StatePart("convolution 0", (2 * 2 * 16 + 4 * 16, 4), torch.bfloat16),
            StatePart("recurrence 0", (4, 16, 16), torch.float32),
        )
    )
    assert state.layers == {
        1: KVCacheSpec(2, 16, 16, torch.bfloat16, torch.bfloat16),
        "model.layers.0.linear_attn": recurrent,
        "model.layers.2.linear_attn": recurrent,
    }


def test_what_a_layer_wants_of_its_cache_and_does_not_get_is_told() -> None:
    with pytest.raises(
        UnsupportedModel, match=r"inkling_text.* asks its cache for get_mask_sizes, which is not served"
    ):
        rehearse(inspect_architecture(tiny_config("inkling_text")), torch.float32)
