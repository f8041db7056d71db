"""A model being served: its platform, its deployed functions and its engine, started and stopped together."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from faasmoe.model.dense import DenseModel
from faasmoe.model.plan import ModelPlan
from faasmoe.model.tokenizer import Tokenizer
from faasmoe.orchestrator.dispatch import Dispatch, check_fits, deploy
from faasmoe.orchestrator.engine import Engine
from faasmoe.orchestrator.figures import Figures
from faasmoe.orchestrator.meter import Meter
from faasmoe.orchestrator.options import EngineOptions
from faasmoe.platforms.base import Platform
from faasmoe.platforms.local.run_folder import RunFolder

# A dense part that fits a core's share of the last cache runs faster on one thread than on several that wait for
# each other after every small layer.
_SMALL_DENSE_BYTES = 16 << 20


class Serving:
    """A running model. Use it as a context manager, or call `close`.

    `start_platform` is called when the tokenizer is known to be good. The functions' artifacts are written to
    `artifacts`, or to a folder that goes with this object. Raises `UserError` if the checkpoint turns out to be
    unusable; nothing is left running then.
    """

    def __init__(
        self,
        plan: ModelPlan,
        start_platform: Callable[[], Platform],
        max_model_len: int,
        options: EngineOptions | None = None,
        artifacts: Path | None = None,
    ) -> None:
        self.plan = plan
        self.tokenizer = Tokenizer.load(plan.source.folder, plan.architecture.config)
        if plan.quantised:
            plan.quantised.make()
        with ExitStack() as undo:
            self.platform = platform = undo.enter_context(start_platform())
            deploy(platform, plan.blocks, artifacts or undo.enter_context(RunFolder()).path / "artifacts")
            self.dispatch = Dispatch(platform, plan.blocks)
            threads = 1 if plan.dense_bytes < _SMALL_DENSE_BYTES else len(os.sched_getaffinity(0))
            self.model = DenseModel.load(
                plan.architecture, plan.layout, plan.checkpoint, plan.dtype, self.dispatch, threads, plan.linears
            )
            check_fits(platform, plan.blocks, self.model.experts_per_token)
            self._meter = Meter(self.dispatch.counts)
            self.engine = Engine(
                self.model,
                self.tokenizer,
                end_tokens=self.tokenizer.end_tokens,
                max_model_len=max_model_len,
                options=options,
                observer=self._meter.step,
            )
            undo.callback(self.engine.close)
            self._undo = undo.pop_all()

    def figures(self) -> Figures:
        """What the engine did so far."""
        return self._meter.read(*self.engine.load(), self.engine.gauges())

    def close(self) -> None:
        """Stop the engine, then the platform. May be called twice."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
