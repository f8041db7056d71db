"""Records which experts a model picks while it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faasmoe.errors import EngineStopped, OptionError
from faasmoe.evaluation.drive import drive
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import ModelSource
from faasmoe.model.plan import context_length, make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.planner.activations import RecordedActivations, Recorder
from faasmoe.platforms.registry import start


def record(
    source: ModelSource,
    prompts: Sequence[str],
    answer_tokens: int,
    dtype: str = "auto",
    advance: Callable[[], object] = lambda: None,
) -> RecordedActivations:
    """Have the model answer each prompt, one after the other, in this process. `advance` is told of each answer.

    Raises `OptionError` if there is no prompt, and what loading or running a model raises.
    """
    if not prompts:
        raise OptionError("there is no prompt to record the activations of")
    plan = make_plan(source, None, dtype)
    with Runtime(plan, lambda: start("inline", PRELOAD), context_length(plan, None)) as serving:
        recorder = Recorder(serving.dispatch)
        serving.model.route_to(recorder)
        for prompt in prompts:
            (outcome,) = drive([Ask(None, "record", prompt, answer_tokens)], serving)
            if outcome.error:
                raise EngineStopped(outcome.error)
            advance()
    return recorder.activations()
