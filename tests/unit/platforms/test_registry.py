"""Platforms are found by name, in this package and in others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass, replace
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms import registry
from faasmoe.platforms.base import Demand
from faasmoe.platforms.inline.platform import InlinePlatform
from faasmoe.platforms.registry import PlatformEntry


@dataclass(frozen=True)
class Options:
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"size is {self.size}: must be at least 1")


ENTRY = PlatformEntry(name="brought", options=Options, start=lambda _, __: InlinePlatform())


@pytest.fixture(autouse=True)
def nothing_found() -> Iterator[None]:
    find = registry.find
    find.cache_clear()
    yield
    find.cache_clear()


def bring(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Have packages with these entry points be installed."""
    there = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in points)
    monkeypatch.setattr(registry, "entry_points", there.select)


@pytest.mark.parametrize("name", ["local", "inline", "nodes"])
def test_the_packages_own_are_there(name: str) -> None:
    assert registry.find(name).name == name
    assert name in registry.names()


def test_other_packages_bring_some(monkeypatch: pytest.MonkeyPatch) -> None:
    bring(monkeypatch, ("brought", f"{__name__}:ENTRY"))
    assert registry.names() == ["brought", "inline", "local", "nodes", "ray"]
    assert registry.find("brought") is ENTRY
    with registry.start("brought", ()) as platform:
        assert platform.state == "ok"


def test_the_packages_own_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    bring(monkeypatch, ("local", f"{__name__}:ENTRY"))
    assert registry.find("local") is not ENTRY


def test_an_unknown_name_is_told_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    bring(monkeypatch, ("brought", f"{__name__}:ENTRY"))
    with pytest.raises(OptionError, match="--platform gone: must be one of brought, inline, local"):
        registry.find("gone")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("package_that_is_not_there.sub:ENTRY", "package package_that_is_not_there.* ModuleNotFoundError"),
        (f"{__name__}:GONE", "cannot be imported: AttributeError"),
        (f"{__name__}:Options", "is not a PlatformEntry"),
    ],
)
def test_a_package_that_is_broken_is_named(monkeypatch: pytest.MonkeyPatch, place: str, said: str) -> None:
    bring(monkeypatch, ("broken", place), ("brought", f"{__name__}:ENTRY"))
    with pytest.raises(OptionError, match=f"--platform broken: .*{said}"):
        registry.find("broken")
    assert registry.find("brought") is ENTRY


def test_options_are_checked_by_the_platform() -> None:
    assert ENTRY.parse({"size": 3}) == Options(3)
    with pytest.raises(OptionError, match="--platform brought: does not take --keep-alive"):
        ENTRY.parse({"keep_alive": 3})
    with pytest.raises(OptionError, match="size is 0"):
        ENTRY.parse({"size": 0})


def test_what_other_processes_cannot_use_says_so() -> None:
    with pytest.raises(OptionError, match=r"--platform brought: only the process .* and a server calls them"):
        ENTRY.require_connect("a server")


def test_demand_is_checked_by_the_platforms_own_rule_if_it_has_one() -> None:
    demand = Demand(functions=2, calls_at_once=1, client_tensors=3, function_tensors=4)
    checked: list[Demand] = []
    replace(ENTRY, check=checked.append).check_demand(demand)
    ENTRY.check_demand(demand)  # anything goes
    assert checked == [demand]


def test_own_options_are_read_and_then_checked_with_the_others() -> None:
    own = field(default=1, metadata={"help": "How large."})
    entry = replace(ENTRY, options=make_dataclass("Own", [("size", int, own)], bases=(Options,), frozen=True))
    assert entry.parse(entry.read(["size=3"])).size == 3
    with pytest.raises(OptionError, match="size is 0: must be at least 1"):
        entry.parse(entry.read(["size=0"]))


def test_a_pool_is_woken_if_its_platform_can(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    able = replace(ENTRY, wake=woken.append)
    monkeypatch.setattr(registry, "find", {"able": able, "brought": ENTRY}.__getitem__)
    registry.wake("brought", "a")
    registry.wake("able", "b")
    assert woken == ["b"]
