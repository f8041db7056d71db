"""`faasmoe serve`."""

from __future__ import annotations

import ipaddress
import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from faasmoe.cli.options import (
    BlockSize,
    Dtype,
    KeepAlive,
    MaxModelLen,
    MemoryBudget,
    Model,
    ReleasePageCache,
    platform_options,
)
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from faasmoe.orchestrator.serving import Serving

_BACKLOG = 2048
_ENDING = (signal.SIGINT, signal.SIGTERM)
_GRACE = 5  # seconds that running requests get at shutdown


def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    block_size: BlockSize = None,
    keep_alive: KeepAlive = 60.0,
    max_model_len: MaxModelLen = None,
    dtype: Dtype = "auto",
    memory_budget: MemoryBudget = None,
    release_page_cache: ReleasePageCache = False,
) -> None:
    """Serve a model over an OpenAI-compatible HTTP API.

    Experts run as functions that start when a token is routed to them and stop when they idle.
    """
    console = Console(soft_wrap=True, highlight=False)
    options = platform_options(keep_alive, memory_budget, release_page_cache)
    with _bind(host, port) as listener:  # first of all: nothing is started if the port is taken
        with console.status("starting"):
            from faasmoe.model.plan import context_length, make_plan
            from faasmoe.model.source import resolve

        source = resolve(model)  # a download shows its own progress
        with console.status("checking the model"):
            plan = make_plan(source, block_size, dtype)
            length = context_length(plan, max_model_len)
        with console.status(f"starting {plan.source.name}"):
            from faasmoe.orchestrator.serving import Serving, local_platform

            serving = Serving(plan, lambda: local_platform(options), length)
        with serving:
            _run(_app(serving), listener, lambda: _greet(console, serving, listener))
    console.print("stopped")


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OptionError(
            f"--host {host} --port {port}: cannot listen there: {error.strerror or error}"
        ) from error
    return listener


def _app(serving: Serving) -> FastAPI:
    from faasmoe.api.app import create_app
    from faasmoe.api.metrics import Metrics
    from faasmoe.api.texts import Texts
    from faasmoe.orchestrator.client import OrchestratorClient

    client = OrchestratorClient(serving.engine)
    texts = Texts(serving.tokenizer, int(serving.plan.architecture.text_config.vocab_size))
    return create_app(serving.plan.source.name, client, texts, Metrics(client, serving.platform.status))


def _run(app: FastAPI, listener: socket.socket, ready: Callable[[], None]) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Like uvicorn's, which raises the signal again at the end: we have processes to stop then."""
            before = {number: signal.signal(number, self.handle_exit) for number in _ENDING}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE)
    Server(config).run(sockets=[listener])


def _greet(console: Console, serving: Serving, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    if not ipaddress.ip_address(host).is_loopback:
        console.print(f"[yellow]there are no keys yet: whoever reaches {host}:{port} can use this server[/]")
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    plan = serving.plan
    body = json.dumps(
        {"model": plan.source.name, "prompt": "It was a dark night, and", "max_tokens": 60, "temperature": 0.6}
    )
    console.print(
        f"[bold green]ready[/] {plan.source.name} ({plan.architecture.name}) at [bold]{url}[/]\n"
        f"{len(plan.architecture.experts)} layers of experts in {len(plan.blocks)} functions, none running yet\n"
        f"try it:"
    )
    console.print(f"curl {url}/v1/completions -H 'Content-Type: application/json' -d '{body}'", markup=False)
