"""What orchestrators are launched with, over templates that are played."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from faasmoe.errors import CheckpointError, EngineStopped, FaasmoeError, ProcessLost
from faasmoe.fleet import launcher
from faasmoe.fleet.launcher import TemplateClient
from faasmoe.protocol.config import About, ServingConfig
from faasmoe.protocol.messages import Start

ABOUT = About("arch", 1, 2, 3, 40)
START = Start(ServingConfig("m", "/m"), "local", "/pool", "/folder")


class Template:
    """Loads when it is told to."""

    def __init__(self, start: Start) -> None:
        self.running = True
        self.about: asyncio.Future[About] = asyncio.get_running_loop().create_future()
        self.about.add_done_callback(lambda about: about.exception())

    def end(self, error: FaasmoeError) -> None:
        self.running = False
        if not self.about.done():
            self.about.set_exception(error)


def play(
    monkeypatch: pytest.MonkeyPatch, test: Callable[[TemplateClient, list[Template]], Awaitable[None]]
) -> None:
    made: list[Template] = []

    def start(start: Start) -> Template:
        made.append(Template(start))
        return made[-1]

    async def run() -> None:
        monkeypatch.setattr(launcher, "TemplateProcess", start)
        monkeypatch.setattr(launcher, "wake", lambda *_: None)
        await test(TemplateClient(START), made)

    asyncio.run(run())


def test_one_template_is_started_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(client: TemplateClient, made: list[Template]) -> None:
        assert not client.running
        client.begin()
        waiting = [asyncio.create_task(client.ready()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting.pop().cancel()  # others wait on
        await asyncio.sleep(0)
        made[0].about.set_result(ABOUT)
        assert await asyncio.gather(*waiting, client.ready()) == [ABOUT] * 3
        assert len(made) == 1
        assert client.running

    play(monkeypatch, test)


@pytest.mark.parametrize("error", [ProcessLost("killed"), CheckpointError("cut short")])
def test_one_that_was_lost_is_followed_by_another(monkeypatch: pytest.MonkeyPatch, error: FaasmoeError) -> None:
    async def test(client: TemplateClient, made: list[Template]) -> None:
        for _ in range(2):
            waiting = asyncio.create_task(client.ready())
            await asyncio.sleep(0)
            made[-1].end(error)
            with pytest.raises(type(error)):
                await waiting
        assert len(made) == 2

    play(monkeypatch, test)


def test_who_waits_when_it_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(client: TemplateClient, made: list[Template]) -> None:
        client.close()
        waiting = asyncio.create_task(client.launch())
        await asyncio.sleep(0)
        client.close()
        client.close()
        with pytest.raises(EngineStopped, match="was ended"):
            await waiting
        assert not client.running

    play(monkeypatch, test)


def test_a_template_that_cannot_be_started_is_said_by_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A future that nobody would ever have set was left behind, and all who came waited for it."""

    async def test(client: TemplateClient, made: list[Template]) -> None:
        def fails(start: Start) -> Template:
            raise OSError(11, "Resource temporarily unavailable")

        with monkeypatch.context() as patched:
            patched.setattr(launcher, "TemplateProcess", fails)
            client.begin()
            for wait in (client.ready, client.launch):
                with pytest.raises(OSError, match="temporarily"):
                    await wait()
        waiting = asyncio.create_task(client.ready())
        await asyncio.sleep(0)
        made[0].about.set_result(ABOUT)
        assert await waiting == ABOUT

    play(monkeypatch, test)


def test_the_pool_is_woken_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked for first by the template, when that had loaded the model, and by then nothing had been imported."""

    async def test(client: TemplateClient, made: list[Template]) -> None:
        woken: list[tuple[tuple[str, ...], int]] = []
        monkeypatch.setattr(launcher, "wake", lambda *pool: woken.append((pool, len(made))))
        waiting = asyncio.create_task(client.launch())
        await asyncio.sleep(0)
        assert woken == [(("local", "/pool"), 0)]
        assert client.loading
        made[0].about.set_result(ABOUT)
        assert not client.loading
        waiting.cancel()

    play(monkeypatch, test)
