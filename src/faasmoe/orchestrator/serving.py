"""A model being served: its platform, its deployed functions and its engine, started and stopped together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from faasmoe.model.dense import DenseModel
from faasmoe.model.plan import ModelPlan
from faasmoe.model.tokenizer import Tokenizer
from faasmoe.orchestrator.dispatch import HANDLER, Dispatch, check_fits, deploy
from faasmoe.orchestrator.engine import Engine
from faasmoe.platforms.base import Platform
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.run_folder import RunFolder

# A dense part that fits a core's share of the last cache runs faster on one thread than on several that wait for
# each other after every small layer.
_SMALL_DENSE_BYTES = 16 << 20


def local_platform(options: LocalOptions | None = None) -> LocalPlatform:
    """The embedded platform, able to run expert functions."""
    return LocalPlatform(replace(options or LocalOptions(), preload=(HANDLER.partition(":")[0],)))


class Serving:
    """A running model. Use it as a context manager, or call `close`.

    `start_platform` is called when the tokenizer is known to be good. Raises `UserError` if the checkpoint turns
    out to be unusable; nothing is left running then.
    """

    def __init__(self, plan: ModelPlan, start_platform: Callable[[], Platform], max_model_len: int) -> None:
        self.plan = plan
        self.tokenizer = Tokenizer.load(plan.source.folder, plan.architecture.config)
        with ExitStack() as undo:
            self.platform = platform = undo.enter_context(start_platform())
            deploy(platform, plan.blocks, undo.enter_context(RunFolder()).path / "artifacts")
            self.dispatch = Dispatch(platform, plan.blocks)
            self.model = DenseModel.load(
                plan.architecture, plan.layout, plan.checkpoint, plan.dtype, self.dispatch
            )
            check_fits(platform, plan.blocks, self.model.experts_per_token)
            self.engine = Engine(
                self.model,
                self.tokenizer,
                end_tokens=self.tokenizer.end_tokens,
                max_model_len=max_model_len,
                threads=1 if plan.dense_bytes < _SMALL_DENSE_BYTES else None,
            )
            undo.callback(self.engine.close)
            self._undo = undo.pop_all()

    def processes(self) -> dict[str, Iterable[int]]:
        """Process ids by role. The orchestrator is this process; what forks instances counts with them."""
        return {"orchestrator": [os.getpid()], "instances": self.platform.processes()}

    def close(self) -> None:
        """Stop the engine, then the platform. May be called twice."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
