from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from faasmoe.errors import UnsupportedModel
from faasmoe.model.dense.attention import HARMLESS, FlatRow, Span, flat_attention
from faasmoe.model.dense.windows import window_mask
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import SequenceState, StateSpec

HEADS, KV_HEADS, DIM = 4, 2, 8


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int,
    softcap: float,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """The textbook, for one whole sequence: `[heads, n, dim]` to `[n, heads, dim]`."""
    key, value = (t.repeat_interleave(HEADS // KV_HEADS, 0) for t in (key, value))
    scores = query @ key.transpose(1, 2) * DIM**-0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    n = query.shape[1]
    for i in range(n):
        for j in range(n):
            if j > i or (window and j <= i - window):
                scores[:, i, j] = -torch.inf
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(-1, n, 1)], -1)
    return (scores.softmax(-1)[..., :n] @ value).transpose(0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])  # compiled for decodes, or torch's own
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_chunks_of_interleaved_sequences_equal_each_sequence_alone(
    window: int, softcap: float, with_sinks: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 6]
    tensors = [[torch.randn(h, n, DIM, generator=generator) for h in (HEADS, KV_HEADS, KV_HEADS)] for n in lengths]
    sinks = torch.randn(HEADS, generator=generator) if with_sinks else None
    module, row = nn.Module(), FlatRow(windows={0: window})
    module.layer_idx = 0
    row.attach(module)
    spec = StateSpec({0: KVCacheSpec(KV_HEADS, DIM, DIM, dtype, dtype)})
    states = [spec.allocate() for _ in lengths]
    for state, length in zip(states, lengths, strict=True):
        state.reserve(length)
    got: list[list[torch.Tensor]] = [[], []]
    done = [0, 0]
    for counts in [(4, 1), (1, 1), (3, 3), (1, 1)]:
        row.spans = [Span(state, n) for state, n in zip(states, counts, strict=True)]
        q, k, v = (
            torch.cat([t[i][:, d : d + n] for t, d, n in zip(tensors, done, counts, strict=True)], 1)[None].to(
                dtype
            )
            for i in range(3)
        )
        out, _ = flat_attention(module, q, k, v, None, softcap=softcap or None, s_aux=sinks)
        for i, part in enumerate(out[0].split(list(counts))):
            got[i].append(part)
            done[i] += counts[i]
    assert done == lengths
    for its, parts in zip(tensors, got, strict=True):
        wanted = reference(*its, window, softcap, sinks)
        assert torch.allclose(torch.cat(parts).float(), wanted, atol=1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("window", "softcap", "with_sinks"), [(0, 0.0, False), (3, 0.0, False), (3, 2.0, True)])
def test_tokens_of_a_span_that_attend_apart_have_the_bits_of_single_ones(
    dtype: torch.dtype, window: int, softcap: float, with_sinks: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    length, before = 21, 14
    tensors = [torch.randn(1, h, length, DIM, generator=generator).to(dtype) for h in (HEADS, KV_HEADS, KV_HEADS)]
    sinks = torch.randn(HEADS, generator=generator) if with_sinks else None
    module, row = nn.Module(), FlatRow(windows={0: window})
    module.layer_idx = 0
    row.attach(module)
    spec = StateSpec({0: KVCacheSpec(KV_HEADS, DIM, DIM, dtype, dtype)})

    def run(state: SequenceState, start: int, count: int, *, apart: bool = False) -> torch.Tensor:
        other = spec.allocate()  # of a prompt in the same step
        other.reserve(2)
        row.spans = [Span(other, 2), Span(state, count, apart=apart)]
        both = (torch.cat([t[:, :, :2], t[:, :, start : start + count]], 2) for t in tensors)
        out, _ = flat_attention(module, *both, None, softcap=softcap or None, s_aux=sinks)
        return out[0, 2:]

    states = [spec.allocate() for _ in range(2)]
    for state in states:
        state.reserve(before + 2)  # the buffers grow in between
        run(state, 0, before)
        state.reserve(length)
    single = torch.cat([run(states[0], at, 1) for at in range(before, length)])
    together = run(states[1], before, length - before, apart=True)
    assert torch.equal(together, single)
    assert states[1].truncate(before + 1) == before + 1
    assert torch.equal(run(states[1], before + 1, 3, apart=True), single[1:4])


def test_masks_become_windows_in_the_probe_only() -> None:
    ones = torch.ones(1, 1)

    def width(function: object) -> int:
        return int(window_mask(function, attention_mask=ones))

    assert width(causal_mask_function) == 0
    assert width(sliding_window_causal_mask_function(128)) == 128
    assert width(sliding_window_causal_mask_function(1)) == 1
    assert width(bidirectional_mask_function) < 0
    for device in ("cpu", "meta"):  # the latter in a rehearsal
        padding = torch.zeros(1, dtype=torch.long, device=device)
        assert width(chunked_causal_mask_function(100, padding)) == -100


def test_a_layer_without_a_causal_window_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="layer 3"):
        FlatRow().note_window(3, -1)


def test_keywords_that_may_change_something_are_refused() -> None:
    module, row = nn.Module(), FlatRow()
    module.layer_idx = 5
    row.attach(module)
    x = torch.zeros(1, 1, 1, DIM)
    for named in ({"position_bias": x}, {"block_indices": x}, {"is_causal": False}, {"dropout": 0.0, "new": 3}):
        with pytest.raises(UnsupportedModel, match=f"layer 5 passes {list(named)[-1]} to its attention"):
            flat_attention(module, x, x, x, None, **named)
    out, _ = flat_attention(
        module, x[:, :, :0], x[:, :, :0], x[:, :, :0], None, is_causal=True, new=None, dropout=0.0
    )
    assert out.shape == (1, 0, 1, DIM)


def test_the_keywords_that_models_pass_are_known() -> None:
    """A keyword that a new release of transformers passes has to be looked at: is it served, harmless, or refused?"""
    served = {"scaling", "sliding_window", "softcap", "s_aux", "indices", "is_causal"}
    refused = {"position_bias", "block_indices", "sinks"}
    vision = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
    passed = set()
    for file in (Path(transformers.__file__).parent / "models").glob("*/modeling_*.py"):
        text = file.read_text()
        if "use_experts_implementation" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "attention_interface":
                passed |= {keyword.arg for keyword in node.keywords if keyword.arg}
    assert {"scaling", "indices"} <= passed
    assert passed <= served | HARMLESS | refused | vision | {"attention_mask"}
