"""Announces the stages of a server's start and end: lines on standard output, or log lines for programs."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from faasmoe.cli.progress import Stages
from faasmoe.cli.server.access import is_loopback, url_of, who_may

if TYPE_CHECKING:
    import socket

    from faasmoe.protocol.config import About
    from faasmoe.tenancy.service import TenancyService
    from faasmoe.util.logs import Format

log = logging.getLogger(__name__)

_PROMPT = "It was a dark night, and"


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """A server that takes requests from now on."""

    model: str
    about: About
    listener: socket.socket
    admin: socket.socket | None  # the listener of the admin API
    tenancy: TenancyService


class Announcer:
    """Announces to people on standard output. With `--log-format json` it logs, so that all lines are JSON."""

    def __init__(self, log_format: Format) -> None:
        self._logs = log_format == "json"
        self._console = Console(soft_wrap=True, highlight=False)
        self._stages = Stages(self._console)

    def stage(self, text: str) -> None:
        """`text` says what is done from now on."""
        if self._logs:
            log.info(text, extra={"seconds": round(self._stages.seconds, 1)})
        else:
            self._stages.begin(text)

    def ready(self, greeting: Greeting) -> None:
        """Requests are taken from now on."""
        if self._logs:
            self._log_ready(greeting)
        else:
            self._print_ready(greeting)

    def stopped(self) -> None:
        """The server has ended."""
        if self._logs:
            log.info("stopped")
        else:
            self._console.print("stopped")

    def _log_ready(self, greeting: Greeting) -> None:
        log.info(
            "ready",
            extra={
                "seconds": round(self._stages.seconds, 1),
                "model": greeting.model,
                "architecture": greeting.about.architecture,
                "url": url_of(greeting.listener),
                "admin_url": None if greeting.admin is None else url_of(greeting.admin),
                "functions": greeting.about.functions,
                "max_model_len": greeting.about.max_model_len,
                "access": who_may(greeting.tenancy, greeting.listener),
            },
        )

    def _print_ready(self, greeting: Greeting) -> None:
        console, about, url = self._console, greeting.about, url_of(greeting.listener)
        console.print(
            f"[bold green]ready[/] after {self._stages.seconds:.1f} s: "
            f"{greeting.model} ({about.architecture}) at [bold]{url}[/]\n"
            f"{about.layers} layers of experts in {about.functions} functions, none running yet; "
            f"a context of {about.max_model_len} tokens"
        )
        if greeting.admin is not None:
            console.print(f"the admin API is at {url_of(greeting.admin)}")
        keyless = greeting.tenancy.authentication.open
        exposed = keyless and not is_loopback(greeting.listener)
        console.print(who_may(greeting.tenancy, greeting.listener), style="yellow" if exposed else "")
        key = "" if keyless else " -H 'Authorization: Bearer KEY'"
        body = json.dumps({"model": greeting.model, "prompt": _PROMPT, "max_tokens": 60, "temperature": 0.6})
        console.print("try it:")
        console.print(
            f"curl {url}/v1/completions{key} -H 'Content-Type: application/json' -d '{body}'", markup=False
        )
