from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from examples import own_platform

from faasmoe.cli.platforms import platform_options
from faasmoe.errors import OptionError
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.platforms import registry
from faasmoe.platforms.inline.platform import InlinePlatform
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.registry import PlatformEntry, find
from faasmoe.util import machine
from tests.packages import install_platform
from tests.unit.cli.commands import run

GIB = 1 << 30


@dataclass(frozen=True)
class Options:
    keep_alive: float = 1.0
    nodes: int = field(default=2, metadata={"help": "Machines that run functions."})


ENTRY = PlatformEntry(name="made", options=Options, start=lambda *_: InlinePlatform(), running=lambda _: [])


def test_options_for_all_platforms_and_those_of_one_come_together() -> None:
    assert platform_options(ENTRY, ["nodes=5"], 3.0, None) == Options(keep_alive=3.0, nodes=5)
    assert platform_options(ENTRY, None, None, None) == Options()
    local = platform_options(find("local"), ["zygote_keep_alive=inf"], None, 1 << 30)
    assert local == LocalOptions(zygote_keep_alive=float("inf"), memory_budget=1 << 30)


@pytest.mark.parametrize(
    "command", [("serve",), ("generate",), ("functions",), ("evaluate", "strategies"), ("evaluate", "tenants")]
)
def test_help_lists_the_options_of_installed_platforms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    def found(name: str) -> PlatformEntry:
        if name == "broken":
            raise OptionError("--platform broken: package broken cannot be imported")
        return {"made": ENTRY, "local": find("local")}[name]

    monkeypatch.setattr(registry, "names", lambda: ["broken", "local", "made"])
    monkeypatch.setattr(registry, "find", found)
    assert run(monkeypatch, *command, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "broken --platform broken: package broken cannot be imported" in shown
    assert "zygote_keep_alive=300.0 local: Seconds that the daemon" in shown
    assert "nodes=2 made: Machines that run functions." in shown


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The platform of the example, as a package that is installed."""
    install_platform(monkeypatch, tmp_path, own_platform.NAME, "examples.own_platform:ENTRY")
    return own_platform.NAME


def test_a_package_brings_a_platform_with_options_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], example: str
) -> None:
    assert run(monkeypatch, "generate", "--help") == 0
    assert "threads=1 threads: Threads that run functions." in " ".join(capfd.readouterr().out.split())
    chosen = ("generate", "--prompt", "x", "--platform", example)
    for more, said in [
        (("--platform-option", "threads=0"), "threads is 0: must be at least 1"),
        (("--platform-option", "threads=x"), "--platform-option threads=x: must be of type int"),
        (
            ("--platform-option", "zone=x"),
            "--platform-option zone=x: the options of platform threads are: threads",
        ),
        (("--keep-alive", "3"), "--platform threads: does not take --keep-alive"),
    ]:
        assert run(monkeypatch, *chosen, *more) == 2
        assert said in capfd.readouterr().err


def test_a_strategy_starts_the_platform_with_its_own_options(example: str) -> None:
    orders = Orders(
        strategy="faasmoe-shared", model="model", tenants=(), platform=example, platform_option=("threads=3",)
    )
    with orders.start_platform() as platform:
        assert platform.capabilities.parallelism == 3


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 8 * GIB)
    monkeypatch.setattr(machine, "available_memory", lambda: 5 * GIB)
    monkeypatch.setattr(machine, "memory_is_limited", lambda: True)


def memory_budget(given: int | None) -> int | None:
    options: LocalOptions = platform_options(find("local"), None, 60.0, given)
    return options.memory_budget


@pytest.mark.usefixtures("limited")
def test_functions_have_a_part_of_what_a_control_group_leaves(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "faasmoe"):
        assert memory_budget(None) == 3 * GIB
    assert "functions have 3072 MiB" in caplog.text
    assert memory_budget(7 * GIB) == 7 * GIB


def test_there_is_no_budget_where_nothing_limits_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_is_limited", lambda: False)
    assert memory_budget(None) is None
