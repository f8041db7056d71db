"""JetMoE's experts in a module of their own compute what its class does."""

from __future__ import annotations

import torch
from transformers import JetMoeConfig
from transformers.models.jetmoe.modeling_jetmoe import JetMoeMoA, JetMoeMoE

from faasmoe.model.adapter.stacked_experts import renamed_tensors, separate_experts

CONFIG = JetMoeConfig(hidden_size=24, intermediate_size=16, num_local_experts=6, num_experts_per_tok=3)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    return module.eval()


@torch.inference_mode()
def test_a_block_with_a_module_of_experts_computes_the_same() -> None:
    block = torch.nn.ModuleDict({"mlp": randomised(JetMoeMoE(CONFIG))})
    x = torch.randn(2, 5, 24)
    wanted = block["mlp"](x)
    separate_experts(block)
    assert torch.allclose(block["mlp"](x), wanted, atol=1e-6)
    assert set(block.state_dict()) == {
        "mlp.bias", "mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.router.layer.weight"
    }  # fmt: skip
    assert renamed_tensors(block) == {
        r"mlp\.input_linear\.weight": "mlp.experts.gate_up_proj",
        r"mlp\.output_linear\.weight": "mlp.experts.down_proj",
    }


def test_other_models_have_no_renamed_tensors() -> None:
    assert renamed_tensors(torch.nn.ModuleList([torch.nn.Linear(2, 2)])) == {}


@torch.inference_mode()
def test_experts_of_attention_stay_and_know_in_a_rehearsal_how_many_rows_they_get() -> None:
    attention = randomised(JetMoeMoA(CONFIG))
    x = torch.randn(1, 4, 24)
    wanted, logits, _ = attention.map(x)
    separate_experts(attention)
    mapped, same, _ = attention.map(x)
    assert torch.equal(mapped, wanted)
    assert torch.equal(same, logits)
    attention.to("meta")
    with torch.device("meta"):
        there, _, sorting = attention.map(x.to("meta"))
        assert there.shape == wanted.shape
        assert attention.reduce(there, sorting).shape == x.shape
