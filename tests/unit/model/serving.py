"""Serves tiny checkpoints in one process, and has transformers run the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.model.dense.attention import Span
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import ModelPlan
from tests.platforms import InProcessPlatform

TOKENS = torch.randint(3, 128, (24,), generator=torch.Generator().manual_seed(0)).tolist()


def declare(folder: Path, settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))


def computed(plan: ModelPlan, folder: Path) -> tuple[DenseModel, Tensor]:
    """The served model, and the logits of all tokens, the first of them one at a time."""
    folder.mkdir()
    platform = InProcessPlatform()
    platform.deploy(write_functions(plan.blocks, folder))
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype, plan.linears)
    model.start(Dispatch(platform, plan.blocks), threads=1)
    state = model.state_spec.allocate()
    state.reserve(len(TOKENS))
    rows = [model.forward([token], [i], [Span(state, 1)], [0]) for i, token in enumerate(TOKENS[:3])]
    rest = range(3, len(TOKENS))
    rows.append(model.forward(TOKENS[3:], list(rest), [Span(state, len(rest))], list(range(len(rest)))))
    return model, torch.cat(rows)


@torch.inference_mode()
def reference(folder: Path, **how: Any) -> Tensor:
    """Logits of all tokens by transformers, which loads the checkpoint `how`."""
    model = AutoModelForCausalLM.from_pretrained(folder, **{"dtype": torch.float32, **how}).eval().float()
    logits: Tensor = model(torch.tensor([TOKENS])).logits[0]
    return logits
