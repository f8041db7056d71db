from __future__ import annotations

import pytest
import torch
from torch import nn

from faasmoe.errors import UnsupportedModel
from faasmoe.model.dense.attention import FlatRow, Span
from faasmoe.model.dense.indexed.indexer import AnyMask, take_over
from faasmoe.model.state.sequence_state import SequenceState, StateSpec
from tests.tiny import tiny_config, tiny_model

TOPK, LENGTH = 8, 21


def layer(model_type: str) -> nn.Module:
    attention: nn.Module = tiny_model(tiny_config(model_type)).model.layers[0].self_attn
    return attention


@pytest.mark.parametrize("model_type", ["deepseek_v32", "glm_moe_dsa", "hy_v4"])
@torch.inference_mode()
def test_it_selects_what_transformers_own_selects(model_type: str) -> None:
    """In chunks beside another sequence, from dense to selected positions."""
    torch.manual_seed(0)
    attention = layer(model_type)
    own, row = attention.indexer, FlatRow(probing=True)
    hidden, resid = torch.randn(1, LENGTH, 64), torch.randn(1, LENGTH, 16)
    angles = torch.randn(1, LENGTH, 4).repeat(1, 1, 2)
    tensors = hidden, resid, angles.cos(), angles.sin()
    wanted = own(hidden, resid, tensors[2:], torch.ones(LENGTH, LENGTH).tril().bool()[None], None)[0]
    assert take_over(nn.ModuleList([attention]), row)
    row.spans = [Span(SequenceState(), 1)]
    attention.indexer(
        hidden[:, :1], resid[:, :1], tuple(each[:, :1] for each in tensors[2:]), torch.zeros(1), None
    )
    assert list(row.kinds) == ["0.indexer"]
    row.probing = False
    spec = StateSpec(row.kinds)
    state, other = spec.allocate(), spec.allocate()
    state.reserve(LENGTH)
    other.reserve(LENGTH)
    start = 0
    for count, apart in ((5, False), (6, False), (1, False), (4, True), (5, False)):
        row.spans = [Span(other, 1), Span(state, count, apart=apart)]
        here = [0, *range(start, start + count)]
        h, q, cos, sin = (each[:, here] for each in tensors)
        got = attention.indexer(h, q, (cos, sin), AnyMask()["any"][:, 0], None)
        assert got.shape == (1, count + 1, TOPK)
        for at, its in enumerate(got[0, 1:], start):
            if its[0] < 0:
                assert start + count <= TOPK
            else:
                seen = set(its.tolist()) & set(range(at + 1))
                assert seen == set(wanted[at].tolist()) & set(range(at + 1))
        start += count
    assert start == LENGTH


def test_indexers_of_other_kinds_are_refused() -> None:
    attention = layer("deepseek_v32")
    del attention.indexer.index_topk
    with pytest.raises(UnsupportedModel, match="DeepseekV32Indexer is an indexer of a kind that is not served"):
        take_over(nn.ModuleList([attention]), FlatRow())
    attention.indexer.index_topk = 9  # it says so, and selects others
    attention.indexer.forward = lambda hidden_states, q_resid, position_embeddings, attention_mask, position_ids, \
        past_key_values: past_key_values.update_indexer(hidden_states, 0)[..., 0].int()[None]  # fmt: skip
    row = FlatRow(spans=[Span(SequenceState(), 1)], probing=True)
    take_over(nn.ModuleList([attention]), row)
    x = torch.zeros(1, 1, 64)
    with pytest.raises(UnsupportedModel, match=r"layer 0\.indexer does something else than to select 9"):
        attention.indexer(x, x, (x, x), x, None)
