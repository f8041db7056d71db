"""`faasmoe evaluate ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from faasmoe.cli.evaluation import results as reading
from faasmoe.cli.evaluation.base import (
    Extrapolate,
    Out,
    ServedAloneParameters,
    ServedParameters,
    Strategy,
    Trials,
    base_of,
    usual_sizes,
)
from faasmoe.cli.evaluation.trials import run
from faasmoe.cli.evaluation.workloads import (
    MOST_TENANTS,
    ClockParameters,
    MaxTokens,
    PaperParameters,
    PromptTokens,
    Replay,
    Rounds,
    Tenants,
    WorkloadName,
)
from faasmoe.cli.kernels import cache
from faasmoe.cli.numeric import MOST_COUNT, MOST_SECONDS, real, whole
from faasmoe.cli.options import BlockSize, Dtype, Json, MeasuredKeepAlive, MemoryBudget, Model, Seed
from faasmoe.cli.parameters import grouped
from faasmoe.cli.platforms import PlatformCommand, PlatformName, PlatformOptions
from faasmoe.errors import OptionError
from faasmoe.platforms import DEFAULT

if TYPE_CHECKING:
    from faasmoe.evaluation.experiment import Settings

app = typer.Typer(
    help="Measure what serving takes, and read results.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def callback() -> None:
    """Measure what serving takes, and read results.

    Experiments run one case after the other, in random order in each trial, and start everything anew every time. An
    interrupted one goes on where it was when the same command is started again.
    """
    cache.apply()


@app.command(cls=PlatformCommand)
@grouped
def strategies(
    *,
    out: Out,
    model: Model = None,
    strategy: Strategy = None,
    workload: WorkloadName = "paper",
    replay: Replay = None,
    tenants: Tenants = 6,
    trials: Trials = 3,
    rounds: Rounds = 1,
    clock: ClockParameters,
    served: ServedParameters,
    memory_budget: MemoryBudget = None,
    dtype: Dtype = "auto",
    seed: Seed = 0,
    extrapolate: Extrapolate = False,
    as_json: Json = False,
) -> None:
    """Run strategies over the same requests and measure them: who shares which part of a model."""
    from faasmoe.evaluation import experiments
    from faasmoe.evaluation.strategies.registry import STRATEGIES

    asked = clock.requests(workload, replay, rounds)
    base = base_of(
        model,
        {"tenants": tenants, **asked.settings},
        trials=trials,
        served=served,
        dtype=dtype,
        seed=seed,
        memory_budget=memory_budget,
        extrapolate=extrapolate,
    )
    run(experiments.strategies(base, strategy or STRATEGIES, asked.workload, tenants), base, out, as_json)


@app.command(cls=PlatformCommand)
@grouped
def blocks(
    *,
    out: Out,
    model: Model = None,
    size: Annotated[
        list[int] | None,
        whole(
            1,
            MOST_COUNT,
            help="Experts in one function; may be repeated. Default: 1, 5, 10, 20 and all of a layer.",
            show_default=False,
        ),
    ] = None,
    tenants: Tenants = 6,
    trials: Trials = 3,
    paper: PaperParameters,
    platform: PlatformName = DEFAULT,
    platform_option: PlatformOptions = None,
    keep_alive: MeasuredKeepAlive = None,
    dtype: Dtype = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Block sizes: what they mean for memory, CPU time, latency and invocations."""
    from faasmoe.evaluation import experiments
    from faasmoe.model.config.facts import ConfigFacts

    asked = paper.requests()
    settings = {"tenants": tenants, **asked.settings}
    served = ServedParameters(platform=platform, platform_option=platform_option, keep_alive=keep_alive)
    base = base_of(model, settings, trials=trials, served=served, dtype=dtype, seed=seed)
    for each in size or ():
        ConfigFacts.read(Path(base.orders.model)).check(each)
    sizes = size or usual_sizes(base)
    run(experiments.blocks(base, sizes, asked.workload, tenants), base, out, as_json)


@app.command(cls=PlatformCommand)
@grouped
def keepalive(
    *,
    out: Out,
    model: Model = None,
    kept: Annotated[
        list[float] | None,
        real(
            0.1,
            MOST_SECONDS,
            help="Seconds that an idle instance is kept; may be repeated. Default: 1, 3, 10, 30 and 100.",
            show_default=False,
        ),
    ] = None,
    replay: Replay = None,
    tenants: Tenants = 6,
    trials: Trials = 3,
    clock: ClockParameters,
    block_size: BlockSize = None,
    platform: PlatformName = DEFAULT,
    platform_option: PlatformOptions = None,
    dtype: Dtype = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Keep-alives: GB-seconds against latency with bursts, beside one full model that is always there."""
    from faasmoe.evaluation import experiments

    asked = clock.requests("bursty", replay)
    settings = {"tenants": tenants, **asked.settings}
    served = ServedParameters(block_size=block_size, platform=platform, platform_option=platform_option)
    base = base_of(model, settings, trials=trials, served=served, dtype=dtype, seed=seed)
    found = experiments.keepalive(base, kept or (1.0, 3.0, 10.0, 30.0, 100.0), asked.workload, tenants)
    run(found, base, out, as_json)


@app.command(cls=PlatformCommand)
@grouped
def overhead(
    *,
    out: Out,
    model: Model = None,
    tenants: Tenants = 1,
    trials: Trials = 3,
    paper: PaperParameters,
    served: ServedParameters,
    dtype: Dtype = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure the time of a token part by part, cold starts, and the idle time that costs as much as a cold start."""
    from faasmoe.evaluation import experiments

    asked = paper.requests()
    settings = {"tenants": tenants, **asked.settings}
    base = base_of(model, settings, trials=trials, served=served, dtype=dtype, seed=seed)
    run(experiments.overhead(base, asked.workload, tenants), base, out, as_json)


@app.command("tenants", cls=PlatformCommand)
@grouped
def tenants_(
    *,
    out: Out,
    model: Model = None,
    count: Annotated[
        list[int] | None,
        whole(
            1,
            MOST_TENANTS,
            help="Number of tenants; may be repeated. Default: 1, 2, 4, 8, 16 and 32.",
            show_default=False,
        ),
    ] = None,
    strategy: Strategy = None,
    trials: Trials = 3,
    paper: PaperParameters,
    served: ServedParameters,
    dtype: Dtype = "auto",
    seed: Seed = 0,
    extrapolate: Extrapolate = False,
    as_json: Json = False,
) -> None:
    """Measure each strategy with several numbers of tenants. Cases that memory cannot hold are left out and listed."""
    from faasmoe.evaluation import experiments
    from faasmoe.evaluation.strategies.registry import STRATEGIES

    asked = paper.requests()
    base = base_of(
        model, asked.settings, trials=trials, served=served, dtype=dtype, seed=seed, extrapolate=extrapolate
    )
    chosen = strategy or STRATEGIES
    run(experiments.tenants(base, count or (1, 2, 4, 8, 16, 32), chosen, asked.workload), base, out, as_json)


@app.command(cls=PlatformCommand)
@grouped
def pressure(
    *,
    out: Out,
    model: Model = None,
    percent: Annotated[
        list[int] | None,
        whole(
            1,
            1000,
            help="Memory limit in percent of the checkpoint's size; may be repeated. Default: 100, 75, 50 and 35.",
            show_default=False,
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="faasmoe-shared, shared-full or llama.cpp; may be repeated. Default: all.", show_default=False
        ),
    ] = None,
    trials: Trials = 3,
    prompt_tokens: PromptTokens = 16,
    max_tokens: MaxTokens = 32,
    warm_up_tokens: Annotated[
        int, whole(1, MOST_COUNT, help="Tokens of the warm-up completion, which is not measured.")
    ] = 16,
    served: ServedAloneParameters,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Tokens a second where memory is short: everything in a control group, page cache included."""
    from faasmoe.evaluation import experiments
    from faasmoe.evaluation.strategies.registry import LLAMACPP
    from faasmoe.evaluation.workloads.ask import Ask

    settings: Settings = {
        "prompt_tokens": prompt_tokens,
        "max_tokens": max_tokens,
        "warm_up_tokens": warm_up_tokens,
    }
    base = base_of(model, settings, trials=trials, served=served, seed=seed)
    chosen = strategy or experiments.PRESSURE
    if LLAMACPP in chosen:
        _write_gguf(Path(base.orders.model))
    ask, warm_up = (Ask(None, "one", prompt_tokens, tokens) for tokens in (max_tokens, warm_up_tokens))
    run(experiments.pressure(base, percent or (100, 75, 50, 35), chosen, ask, warm_up), base, out, as_json)


def _write_gguf(model: Path) -> None:
    try:
        from faasmoe.evaluation.strategies.gguf_file import made
    except ModuleNotFoundError as error:
        raise OptionError(
            f"--strategy llama.cpp: needs {error.name}: pip install gguf llama-cpp-python"
        ) from error
    with Console(stderr=True).status("the model as llama.cpp reads it"):
        made(model)


app.command()(reading.claims)
app.command()(reading.compare)
app.command()(reading.report)
