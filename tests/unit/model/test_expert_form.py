from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.integrations.moe import use_experts_implementation

from faasmoe.errors import UnsupportedModel
from faasmoe.experts.expert import ExpertForm, Gate
from faasmoe.model.architecture import inspect_architecture
from faasmoe.model.expert_form import recognise
from tests.tiny import tiny_config


def test_known_architectures_are_recognised() -> None:
    def form(model_type: str) -> ExpertForm:
        return inspect_architecture(tiny_config(model_type)).experts[0].form

    assert form("qwen2_moe") == ExpertForm(Gate("glu", "silu"))
    assert form("gpt_oss") == ExpertForm(
        Gate("swiglu_oai", limit=7.0, alpha=1.702), transposed=True, interleaved=True
    )


def foreign(scale: float = 1.0, norm: bool = False, gate: object = None) -> nn.Module:
    """An experts class like those of transformers, with a twist."""

    class Experts(nn.Module):
        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__()
            self.num_experts, self.hidden_dim, self.intermediate_dim = 4, 64, 32
            self.gate_up_proj = nn.Parameter(torch.empty(4, 64, 64))
            self.down_proj = nn.Parameter(torch.empty(4, 64, 32))
            self.act_fn = nn.SiLU()

        def forward(self, rows: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            out = torch.zeros_like(rows)
            for token in range(len(rows)):
                for expert, weight in zip(index[token], weights[token], strict=True):
                    both = self.gate_up_proj[expert] @ rows[token]
                    out[token] += weight * scale * (self.down_proj[expert] @ self._apply_gate(both))
            return out

    if gate:
        Experts._apply_gate = gate
    return use_experts_implementation(Experts, has_post_expert_norm=norm)(PretrainedConfig())


def test_a_new_class_that_computes_something_known_is_served() -> None:
    assert recognise("newcomer", foreign()) == ExpertForm(Gate("glu", "silu"))


@pytest.mark.parametrize(
    ("twist", "said"),
    [
        ({"scale": 2.0}, "compute something that the kernels do not"),
        ({"norm": True}, "end in a norm"),
        ({"gate": lambda _, both: both.chunk(2, -1)[0].cosh() * both.chunk(2, -1)[1]}, "gate"),
        ({"gate": lambda _, both: both.no_such_method()}, "cannot be probed"),
    ],
)
def test_what_no_function_computes_is_refused_by_name(twist: dict, said: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"newcomer.*{said}"):
        recognise("newcomer", foreign(**twist))
