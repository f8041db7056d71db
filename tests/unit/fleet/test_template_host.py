"""The template of a node, which is played, for threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointError, EngineStopped
from faasmoe.fleet import template_host
from faasmoe.fleet.template_host import TemplateHost
from faasmoe.protocol.config import ServingConfig
from faasmoe.protocol.messages import Start, encode

START = encode(Start(ServingConfig("m", "/m"), "local", "/pool", "/folder"))


class Template:
    """It loads for ever, unless it is told how that ends."""

    made: Template
    error: Exception | None = None

    def __init__(self, start: Start) -> None:
        type(self).made = self
        self.start = start
        self.running = self.loading = True
        self._ended = asyncio.Event()
        self.begun = threading.Event()

    async def ready(self) -> None:
        self.begun.set()
        if self.error:
            raise self.error
        await self._ended.wait()
        raise EngineStopped("the template was ended")

    def close(self) -> None:
        self.running = False
        self._ended.set()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[TemplateHost]:
    monkeypatch.setattr(template_host, "TemplateClient", Template)
    monkeypatch.setattr(template_host, "_LOOK_SECONDS", 0.01)
    with TemplateHost(1) as host:
        yield host


def test_loading_ends_when_nobody_wants_the_model_any_more(host: TemplateHost) -> None:
    wanted = threading.Event()
    wanted.set()
    with ThreadPoolExecutor(1) as other:
        loading = other.submit(host.load, START, Path("/model"), Path("/pool"), wanted.is_set)
        while not hasattr(Template, "made"):
            assert not loading.done()
        assert Template.made.begun.wait(10)
        assert (Template.made.start.config.folder, Template.made.start.pool) == ("/model", "/pool")
        assert not host.ready
        wanted.clear()
        with pytest.raises(EngineStopped, match="no longer wanted"):
            loading.result(10)
    assert not Template.made.running
    assert not host.ready
    with pytest.raises(EngineStopped, match="has not loaded the model"):
        host.fork()


def test_an_error_of_loading_is_raised(host: TemplateHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Template, "error", CheckpointError("it is damaged"))
    with pytest.raises(CheckpointError, match="it is damaged"):
        host.load(START, Path("/model"), Path("/pool"), lambda: True)
