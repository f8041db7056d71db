"""Orders, carried out on the platform of a node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from faasmoe.errors import PlatformError, UnknownFunction
from faasmoe.platforms.base import FunctionSpec, PoolStatus
from faasmoe.platforms.cluster.agent.orders import LEAVE, NodeOrders
from faasmoe.platforms.cluster.protocol.content import ContentFile, ContentRange, FunctionContent
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    AskNode,
    Beat,
    CatalogueEntry,
    CatalogueReport,
    DrainNode,
    Failure,
    Finished,
    Install,
    NodeReport,
    PrewarmFunctions,
    StopFunctions,
    Traffic,
)
from faasmoe.platforms.cluster.weights.cache import WeightsCache
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.cluster.weights.finder import WeightsFinder
from faasmoe.platforms.cluster.weights.search import WeightSearch
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.clocks import Clock

REPORT = NodeReport(state="ready", pool=PoolStatus(functions=[], memory_used=0), traffic=Traffic(1), work={})


class Recorded:
    """A platform that notes what it is told."""

    def __init__(self) -> None:
        self.deployed: dict[str, FunctionSpec] = {}
        self.stopped: list[str] = []
        self.error: Exception | None = None

    def _fail(self) -> None:
        if self.error:
            raise self.error

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        self._fail()
        self.deployed |= {spec.name: spec for spec in specs}

    def remove(self, names: Sequence[str]) -> None:
        self._fail()
        for name in names:
            del self.deployed[name]

    def stop(self, names: Sequence[str]) -> None:
        self._fail()
        self.stopped += names

    def prewarm(self, names: Sequence[str]) -> None:
        raise UnknownFunction("local", names[0], "it is not deployed")


@pytest.fixture
def platform() -> Recorded:
    return Recorded()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def orders(platform: Recorded, clock: Clock, tmp_path: Path) -> Iterator[NodeOrders]:
    book = DigestBook(tmp_path / "digests")
    finder = WeightsFinder(WeightSearch([], book), WeightsCache(tmp_path / "cache"), book)
    with NodeOrders("a", platform, tmp_path / "artifacts", finder, lambda: REPORT, clock) as orders:
        yield orders


def entry(name: str, stamp: int, hosts: tuple[str, ...] = ("a",), there: bool = True) -> CatalogueEntry:
    spec = FunctionSpec(name, "m:a", Path("/nowhere"), min_instances=2, max_instances=2)
    return CatalogueEntry(name, stamp, spec if there else None, None, hosts)


def test_newer_entries_are_installed_and_older_ones_are_not(orders: NodeOrders, platform: Recorded) -> None:
    assert orders.answer(Install((entry("f", 1), entry("g", 2)))) == Finished()
    assert (set(platform.deployed), orders.stamp) == ({"f", "g"}, 2)
    assert orders.answer(Install((entry("f", 3, there=False), entry("h", 4, there=False)))) == Finished()
    assert orders.answer(Install((entry("f", 1),))) == Finished()
    assert (set(platform.deployed), orders.stamp) == ({"g"}, 4)
    report = orders.answer(AskCatalogue(2))
    assert isinstance(report, CatalogueReport)
    assert {each.name for each in report.entries} == {"f", "h"}


def test_the_first_host_alone_keeps_a_minimum_of_instances(orders: NodeOrders, platform: Recorded) -> None:
    orders.answer(Install((entry("f", 1, ("a", "b")), entry("g", 1, ("b", "a")), entry("h", 1, ()))))
    assert {name: spec.min_instances for name, spec in platform.deployed.items()} == {"f": 2, "g": 0, "h": 0}


def test_a_function_that_moves_away_is_stopped_when_clients_have_heard_of_it(
    orders: NodeOrders, platform: Recorded, clock: Clock
) -> None:
    orders.answer(Install((entry("f", 1, ("a",)), entry("g", 1, ("b",)))))
    orders.answer(Install((entry("f", 2, ("b",)), entry("g", 2, ("a",)))))
    orders.tick()
    assert platform.stopped == []
    clock.now += LEAVE
    orders.tick()
    orders.tick()
    assert platform.stopped == ["f"]


def test_a_function_that_has_come_back_or_is_removed_is_not_stopped(
    orders: NodeOrders, platform: Recorded, clock: Clock
) -> None:
    orders.answer(Install((entry("f", 1), entry("g", 1))))
    orders.answer(Install((entry("f", 2, ("b",)), entry("g", 2, ("b",)))))
    orders.answer(Install((entry("f", 3), entry("g", 3, there=False))))
    clock.now += LEAVE
    orders.tick()
    assert platform.stopped == []


def test_a_node_knows_whether_it_hosts_anything_and_is_to_drain(orders: NodeOrders) -> None:
    assert not orders.hosts_any()
    orders.answer(Install((entry("f", 1, ("a", "b")),)))
    assert orders.hosts_any()
    orders.answer(Install((entry("f", 2, ("b",)),)))
    assert not orders.hosts_any()
    for wanted in (True, False, True):
        assert orders.answer(DrainNode(wanted)) == Finished()
        assert orders.drains == wanted
    orders.clear()
    assert not orders.drains


def test_an_artifact_is_written_on_the_node(orders: NodeOrders, platform: Recorded) -> None:
    spec = FunctionSpec("f", "m:a", Path("/nowhere"))
    assert orders.answer(Install((CatalogueEntry("f", 1, spec, FunctionContent(b"A:"), ("a",)),))) == Finished()
    artifact = platform.deployed["f"].artifact
    assert artifact.read_bytes() == b"A:"
    orders.answer(Install((CatalogueEntry("f", 2, None),)))
    assert not artifact.exists()


def test_contents_that_do_not_fit_leave_the_catalogue_as_it_was(orders: NodeOrders, platform: Recorded) -> None:
    content = FunctionContent(b"", (ContentFile("/w", 9),), (ContentRange(0, 3, 7, bytes(32)),))
    wrong = CatalogueEntry("f", 1, FunctionSpec("f", "m:a", Path("/nowhere")), content)
    failure = orders.answer(Install((wrong,)))
    assert isinstance(failure, Failure)
    assert "function f: the digests of its weights do not fit its files" in failure.cause
    assert (platform.deployed, orders.stamp) == ({}, 0)


def test_a_file_of_this_machine_that_cannot_be_used_is_the_answer(orders: NodeOrders, platform: Recorded) -> None:
    platform.error = OSError(28, "No space left on device", "/cache/f")
    failure = orders.answer(Install((entry("f", 1),)))
    assert isinstance(failure, Failure)
    assert str(failure.error_of("nodes", "a")) == "node a: /cache/f: No space left on device"
    assert orders.stamp == 0


def test_errors_of_the_platform_are_the_answer(orders: NodeOrders) -> None:
    failure = orders.answer(PrewarmFunctions(("f",)))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.function) == ("unknown", "f")


def test_a_node_without_pool_has_no_functions(orders: NodeOrders, platform: Recorded) -> None:
    orders.answer(Install((entry("f", 1),)))
    orders.clear()
    assert (platform.deployed, orders.stamp) == ({}, 0)


def test_removals_hold_though_what_came_with_them_does_not(orders: NodeOrders, platform: Recorded) -> None:
    orders.answer(Install((entry("f", 1), entry("g", 1))))
    content = FunctionContent(b"", (ContentFile("/w", 9),), (ContentRange(0, 3, 7, bytes(32)),))
    wrong = CatalogueEntry("h", 2, FunctionSpec("h", "m:a", Path("/nowhere")), content)
    for _ in range(2):  # the server tells it again
        assert isinstance(orders.answer(Install((entry("f", 2, there=False), wrong))), Failure)
        assert set(platform.deployed) == {"g"}
    assert orders.answer(AskCatalogue(1)) == CatalogueReport((entry("f", 2, there=False),))
    assert orders.stamp == 1  # so a heartbeat tells that it lacks something


def test_a_node_forgets_its_pool_even_if_the_platform_fails(orders: NodeOrders, platform: Recorded) -> None:
    orders.answer(Install((entry("f", 1), entry("g", 1))))
    platform.error = PlatformError("local", "(all)", "the daemon is gone")
    with pytest.raises(PlatformError, match="the daemon is gone"):
        orders.clear()
    assert (orders.hosts_any(), orders.stamp, set(platform.deployed)) == (False, 0, {"f", "g"})
    with pytest.raises(PlatformError):
        orders.tick()
    platform.error = None
    orders.answer(Install((entry("g", 1),)))  # of the next pool
    orders.tick()
    orders.tick()
    assert set(platform.deployed) == {"g"}


def test_what_could_not_be_stopped_is_stopped_later(orders: NodeOrders, platform: Recorded, clock: Clock) -> None:
    orders.answer(Install((entry("f", 1),)))
    orders.answer(Install((entry("f", 2, ("b",)),)))
    clock.now += LEAVE
    platform.error = PlatformError("local", "(all)", "the daemon is gone")
    with pytest.raises(PlatformError):
        orders.tick()
    platform.error = None
    orders.tick()
    assert platform.stopped == ["f"]


def test_a_late_order_of_an_earlier_pool_changes_nothing(orders: NodeOrders, platform: Recorded) -> None:
    def check_there() -> None:
        raise Lost("the node is no longer with its pool")

    for late in (Install((entry("f", 1),)), DrainNode(True)):
        with pytest.raises(Lost, match="no longer with its pool"):
            orders.answer(late, check_there)
    assert (platform.deployed, orders.stamp, orders.drains) == ({}, 0, False)


def test_other_orders(orders: NodeOrders, platform: Recorded) -> None:
    assert orders.answer(AskNode()) == REPORT
    assert orders.answer(StopFunctions(("f",))) == Finished()
    assert platform.stopped == ["f"]
    with pytest.raises(Lost, match="Beat is no order"):
        orders.answer(Beat())
