from __future__ import annotations

import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from faasmoe.errors import OptionError
from faasmoe.evaluation.strategies.gguf_conversion import write
from tests.tiny import save_tiny


def read(path: Path) -> dict[str, tuple[GGMLQuantizationType, np.ndarray]]:
    """The kind of each tensor, and the numbers that it means."""
    tensors = gguf.GGUFReader(path).tensors
    return {
        its.name: (its.tensor_type, gguf.quants.dequantize(its.data, its.tensor_type).reshape(its.shape[::-1]))
        for its in tensors
    }


@pytest.mark.parametrize("kind", [GGMLQuantizationType.BF16, GGMLQuantizationType.Q8_0])
def test_a_file_has_the_tensors_of_the_checkpoint(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    model = save_tiny("qwen2_moe", tmp_path / "model", intermediate_size=64, shared_expert_intermediate_size=64)
    write(tmp_path / "model", tmp_path / "file", kind)
    found, weights = read(tmp_path / "file"), model.state_dict()
    inner = model.config.moe_intermediate_size
    wanted = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
        "blk.1.attn_q.bias": weights["model.layers.1.self_attn.q_proj.bias"],
        "blk.1.ffn_gate_inp.weight": weights["model.layers.1.mlp.gate.weight"],
        "blk.1.ffn_gate_inp_shexp.weight": weights["model.layers.1.mlp.shared_expert_gate.weight"][0],
        "blk.2.ffn_up_exps.weight": weights["model.layers.2.mlp.experts.gate_up_proj"][:, inner:],
        "blk.2.ffn_down_exps.weight": weights["model.layers.2.mlp.experts.down_proj"],
    }
    for name, tensor in wanted.items():
        its, numbers = found[name]
        exact = tensor.dim() == 1 or "gate_inp" in name
        assert its == (GGMLQuantizationType.F32 if exact else kind)
        assert numbers.shape == tensor.shape
        if exact:
            assert np.array_equal(numbers, tensor.numpy())
        else:
            assert torch.allclose(torch.from_numpy(numbers), tensor, atol=0.01 * tensor.abs().max().item())
    assert len(found) == 3 + 3 * (2 + 3 + 3 + 1 + 5 + 3)


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    save_tiny("qwen2_moe", tmp_path / "model", num_hidden_layers=8, moe_intermediate_size=512)
    write(tmp_path / "model", tmp_path / "warm", GGMLQuantizationType.BF16)
    tracemalloc.start()
    try:
        write(tmp_path / "model", tmp_path / "file", GGMLQuantizationType.BF16)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    largest = 2 * 8 * 512 * 64  # bytes of a layer's experts of one kind
    assert (tmp_path / "file").stat().st_size > 20 * largest
    assert most < 4 * largest


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    save_tiny("mixtral", tmp_path / "model")
    with pytest.raises(OptionError, match="supports qwen2_moe only, not mixtral"):
        write(tmp_path / "model", tmp_path / "file", GGMLQuantizationType.BF16)
