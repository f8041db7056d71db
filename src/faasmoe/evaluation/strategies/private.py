"""The processes of `faasmoe serve --strategy private`, without its HTTP server (`faasmoe-private`).

This process is the gateway: it has the model's tokenizer and no torch. The template that it starts loads the model and
forks an orchestrator for each tenant; they stay until the end.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from faasmoe.errors import FaasmoeError
from faasmoe.evaluation.drive import Listener, encode
from faasmoe.evaluation.drive import play as play_against
from faasmoe.evaluation.strategies.protocol import Answered, Orders, Played
from faasmoe.evaluation.strategies.registry import Player
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.fleet.fleet import Fleet
from faasmoe.fleet.launcher import TemplateClient
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.text.tokenizer import Tokenizer
from faasmoe.orchestrator.template import TOKENIZER
from faasmoe.platforms.registry import find
from faasmoe.protocol.config import FleetOptions, ServingConfig
from faasmoe.protocol.messages import Start
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.util.folders.run_folder import RunFolder


@contextmanager
def serve(orders: Orders) -> Iterator[Player]:
    """Starts the pool and the template; orchestrators come with their tenants' first requests."""
    source, most = resolve(orders.model), len(orders.tenants)
    config = ServingConfig(source.name, str(source.folder), block_size=orders.block_size, dtype=orders.dtype)
    find(orders.platform).require_connect(orders.strategy)
    with RunFolder() as folder, orders.start_platform() as pool, asyncio.Runner() as runner:
        launcher = TemplateClient(Start(config, orders.platform, pool.address, str(folder.path), most))
        fleet = Fleet(launcher, FleetOptions("private", math.inf, most))
        runner.run(fleet.__aenter__())
        try:
            runner.run(fleet.ready())
            tokenizer = Tokenizer.saved(folder.path / TOKENIZER)

            def play(asks: Sequence[Ask]) -> Played:
                return runner.run(_play(fleet, tokenizer, asks))

            yield play
        finally:
            runner.run(fleet.__aexit__(None, None, None))


async def _play(fleet: Fleet, tokenizer: Tokenizer, asks: Sequence[Ask]) -> Played:
    loop, before = asyncio.get_running_loop(), await fleet.stats()
    relays = []

    def submit(request: GenerationRequest, hear: Listener) -> None:
        relays.append(asyncio.run_coroutine_threadsafe(_relay(fleet, request, hear), loop))

    tokens = partial(encode, tokenizer, fleet.about.vocabulary)
    outcomes = await asyncio.to_thread(play_against, asks, submit, tokens)
    after = await fleet.stats()
    return Played(
        requests=tuple(map(Answered.of, outcomes)),
        invocations=after.invocations - before.invocations,
        cold_starts=after.cold_starts - before.cold_starts,
    )


async def _relay(fleet: Fleet, request: GenerationRequest, hear: Listener) -> None:
    """Run a request, whatever comes of it."""
    try:
        (stream,) = await fleet.submit([request])
        async for piece in stream:
            hear(piece)
    except FaasmoeError as error:
        hear(Piece("", 0, error=f"{type(error).__name__}: {error}"))
