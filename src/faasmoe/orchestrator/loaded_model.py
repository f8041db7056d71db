"""A model in memory, of which nothing runs yet."""

from __future__ import annotations

from pathlib import Path

import torch

from faasmoe.engine.experts.dispatch import write_functions
from faasmoe.model.dense.attention import Span
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import ModelPlan
from faasmoe.platforms.base import FunctionSpec
from faasmoe.util.folders.run_folder import writing


class LoadedModel:
    """Dense part and the functions to deploy, whose artifacts it writes into a folder, or None if others deploy them.

    It has no threads: a process that holds it can be forked, and its children share all of it. Raises `UserError` if
    the checkpoint turns out to be unusable.
    """

    functions: list[FunctionSpec] | None = None

    def __init__(self, plan: ModelPlan, artifacts: Path | None) -> None:
        self.plan = plan
        self.tokenizer = plan.tokenizer
        if plan.quantised:
            plan.quantised.make()
            self._copy = plan.quantised.use()
        self.files = plan.files()
        self.model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype, plan.linears)
        if artifacts:
            with writing(artifacts):
                self.functions = write_functions(plan.blocks, artifacts)
        self._warm_up()

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Run a prompt and a token after it, without experts, so that the code of every step is loaded."""
        state = self.model.state_spec.allocate()
        state.reserve(3)
        self.model.forward([0, 0], [0, 1], [Span(state, 2)], [1])
        self.model.forward([0], [2], [Span(state, 1)], [0])
