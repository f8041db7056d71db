"""A running model: its platform, deployed functions and engine, started and stopped together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from faasmoe.engine.engine import Engine
from faasmoe.engine.experts.dispatch import Dispatch, calls_at_once, check_fits, deploy
from faasmoe.engine.grammar.compiler import GrammarCompiler
from faasmoe.engine.stats import StatsRecorder
from faasmoe.model.plan import ModelPlan
from faasmoe.orchestrator.loaded_model import LoadedModel
from faasmoe.platforms.base import Demand, Platform
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.stats import EngineStats
from faasmoe.util.closeable import Closeable
from faasmoe.util.folders.run_folder import RunFolder
from faasmoe.util.machine import cores

# A dense part that fits a core's share of the last cache runs faster on one thread than on several that wait for
# each other after every small layer.
_SMALL_DENSE_BYTES = 16 << 20


def install(model: LoadedModel, platform: Platform) -> None:
    """Deploy the model's functions, unless others do. Raises `OptionError` if a token needs more of them than fit."""
    if model.functions is None:
        return
    deploy(platform, model.functions)
    check_fits(platform, model.plan.blocks, model.model.experts_per_token)


def demand(plan: ModelPlan, orchestrators: int = 1, requests: int = 0) -> Demand:
    """The demand of a model that `orchestrators` processes serve, with `requests` connections of HTTP clients."""
    dense = len(plan.layout.dense) + sum(len(weight.parts) - 1 for weight in plan.linears.values())
    its = max(sum(1 for expert in block.artifact.weights for _ in expert) for block in plan.blocks)
    return Demand(
        functions=len(plan.blocks),
        calls_at_once=calls_at_once(plan.blocks),
        client_tensors=dense,
        function_tensors=its,
        clients=orchestrators,
        requests=requests,
    )


class Runtime(Closeable):
    """A running model. Use it as a context manager, or call `close`.

    A plan is loaded first, its functions' artifacts into a folder that goes with this object. `start_platform` is
    called when the model is in memory. Raises `UserError` if the checkpoint turns out to be unusable or the platform's
    memory too small; nothing is left running then.
    """

    def __init__(
        self,
        model: ModelPlan | LoadedModel,
        start_platform: Callable[[], Platform],
        max_model_len: int,
        options: EngineOptions | None = None,
    ) -> None:
        with ExitStack() as undo:
            if isinstance(model, ModelPlan):
                model = LoadedModel(model, undo.enter_context(RunFolder()).path / "artifacts")
            model.files.check_mapped()  # a file that was cut short kills whoever reads on
            self.plan, self.model, self.tokenizer = model.plan, model.model, model.tokenizer
            self.platform = undo.enter_context(start_platform())
            install(model, self.platform)
            self.dispatch = Dispatch(self.platform, self.plan.blocks, files=model.files)
            small = self.plan.dense_bytes < _SMALL_DENSE_BYTES
            self.model.start(self.dispatch, 1 if small else cores())
            self._meter = StatsRecorder(self.dispatch.counts)
            self.engine = Engine(
                self.model,
                self.tokenizer,
                end_tokens=self.tokenizer.end_tokens,
                max_model_len=max_model_len,
                options=options,
                observer=self._meter.step,
                costs=self.dispatch.costs,
                grammars=GrammarCompiler(self.tokenizer, self.model.vocabulary, self.tokenizer.end_tokens),
            )
            undo.callback(self.engine.close)
            self._undo = undo.pop_all()

    def stats(self) -> EngineStats:
        """The engine's stats so far."""
        return self._meter.read(*self.engine.load(), self.engine.gauges())

    def close(self) -> None:
        """Stop the engine, then the platform. May be called twice."""
        self._undo.close()
