"""`faasmoe generate`."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from faasmoe.cli.kernels import cache
from faasmoe.cli.numeric import MOST_SEED, MOST_TOKENS, real, whole
from faasmoe.cli.options import Json, Model
from faasmoe.cli.parameters import ServingParameters, grouped
from faasmoe.cli.progress import Stages, writing
from faasmoe.errors import EngineStopped, OptionError
from faasmoe.util.gc_freeze import importing

if TYPE_CHECKING:
    from faasmoe.model.checkpoint.source import ModelSource
    from faasmoe.orchestrator.runtime import Runtime
    from faasmoe.platforms.base import Platform
    from faasmoe.platforms.registry import PlatformEntry
    from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SamplingParameters:
    """Options for sampling the text."""

    max_tokens: Annotated[int, whole(1, MOST_TOKENS, help="Most tokens to add.")] = 100
    temperature: Annotated[float, real(0, 2, help="0 picks the likeliest token; higher is more random.")] = 0.8
    top_p: Annotated[
        float, real(0, 1, above=True, help="Pick among the likeliest tokens that reach this share.")
    ] = 0.95
    seed: Annotated[
        int | None,
        whole(-MOST_SEED, MOST_SEED, help="The same seed gives the same text.", show_default=False),
    ] = None
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None

    def params(self) -> SamplingParams:
        """The engine's form of them."""
        from faasmoe.protocol.request import SamplingParams

        return SamplingParams(
            self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(self.stop or ()),
        )


@grouped
def generate(
    *,
    prompt: Annotated[str, typer.Option(help="Text to continue.")],
    model: Model = None,
    sampling: SamplingParameters,
    serving: ServingParameters,
    as_json: Json = False,
) -> None:
    """Continue a text, with everything started for it and stopped after it.

    Ends with a line on what it took: speed, functions touched, cold starts, peak memory.
    """
    from faasmoe.experts import PRELOAD
    from faasmoe.model.adapter import torch_build
    from faasmoe.model.checkpoint.source import resolve
    from faasmoe.platforms.registry import find

    errors = Console(stderr=True, highlight=False)
    if not prompt:
        raise OptionError("--prompt '': must have a character at least")
    entry = find(serving.platform)
    options = serving.platform_options(entry)
    params = sampling.params()
    serving.check_types()
    source = resolve(model)  # a download shows its own progress
    serving.check(source.folder, sampling.max_tokens)
    torch_build.warn()
    cache.apply(serving.quantize)
    with entry.start(options, PRELOAD) as pool:  # its processes start while this one imports and loads
        runtime = _load(entry, pool, source, serving, Stages(errors))
        from faasmoe.evaluation.meters.meter import Meter

        with runtime, Meter("orchestrator") as meter:
            answer = _answer(runtime, prompt, params, aloud=not as_json)
    report = _report(runtime, answer, meter.usage.peak)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        typer.echo("\n")
        errors.print(f"[dim]{_summary(report, meter.usage.peak)}[/]", soft_wrap=True)


def _load(
    entry: PlatformEntry, pool: Platform, source: ModelSource, serving: ServingParameters, stages: Stages
) -> Runtime:
    """The model, whose functions run on `pool`."""
    from faasmoe.model.adapter.light_import import import_transformers

    with importing():
        stages.begin("importing torch and transformers")
        import_transformers()
        from faasmoe.model.plan import context_length, make_plan
        from faasmoe.orchestrator.runtime import Runtime, demand

        stages.begin(f"checking {source.name}")
        plan = make_plan(source, serving.block_size, serving.dtype, serving.quantize, serving.rope_scaling)
        entry.check_demand(demand(plan))
        length = context_length(plan, serving.max_model_len)
    if plan.quantised and plan.quantised.missing:
        with writing(f"{plan.quantised.format.name} weights", plan.quantised.missing) as advance:
            plan.quantised.make(advance)
    stages.begin("loading the dense part")
    return Runtime(plan, lambda: pool, length)


@dataclass
class _Answer:
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0


def _answer(serving: Runtime, prompt: str, params: SamplingParams, aloud: bool) -> _Answer:
    """The text that the model adds to `prompt`. If `aloud`, prompt and text are printed, piece by piece."""
    from faasmoe.protocol.request import GenerationRequest

    request = GenerationRequest("generate", tuple(serving.tokenizer.encode(prompt)), params)
    answer, started = _Answer(), time.monotonic()
    if aloud:
        typer.echo(prompt, nl=False)
    for piece in _pieces(serving, request):
        answer.text, answer.tokens = answer.text + piece.text, piece.tokens
        if aloud:
            typer.echo(piece.text, nl=False)
    answer.seconds = time.monotonic() - started
    return answer


def _report(serving: Runtime, answer: _Answer, peaks: dict[str, int]) -> dict[str, object]:
    counts = serving.dispatch.counts
    return {
        "text": answer.text,
        "tokens": answer.tokens,
        "tokens_per_second": round(answer.tokens / answer.seconds, 1),
        "functions_touched": len(counts.functions_touched),
        "functions": serving.dispatch.functions,
        "invocations": counts.invocations,
        "cold_starts": counts.cold_starts,
        "peak_memory_bytes": peaks,
    }


def _pieces(serving: Runtime, request: GenerationRequest) -> Iterator[Piece]:
    """Raises `EngineStopped` if the orchestrator fails."""
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    serving.engine.submit(request, pieces.put)
    while True:
        piece = pieces.get()
        if piece.error:
            raise EngineStopped(piece.error)
        yield piece
        if piece.last:
            return


def _summary(report: dict[str, object], peaks: dict[str, int]) -> str:
    memory = ", ".join(f"{name} {peak / _MIB:.0f} MiB" for name, peak in peaks.items())
    return (
        f"{report['tokens']} tokens at {report['tokens_per_second']}/s, "
        f"{report['functions_touched']} of {report['functions']} functions touched, "
        f"{report['cold_starts']} cold starts, peak memory: {memory}"
    )
