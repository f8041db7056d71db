"""Copies of a catalogue become equal, whatever order their entries come in."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry


def spec(name: str, memory: int = 0) -> FunctionSpec:
    return FunctionSpec(name, "m:a", Path("/a"), memory=memory)


def deploy(catalogue: Catalogue, *specs: FunctionSpec, artifact: bytes = b"a") -> list[CatalogueEntry]:
    entries = catalogue.deployed([(each, FunctionContent(artifact)) for each in specs])
    catalogue.merge(entries)
    return entries


def test_what_is_deployed_is_there_until_it_is_removed() -> None:
    catalogue = Catalogue()
    deploy(catalogue, spec("f"), spec("g"))
    assert set(catalogue.functions()) == {"f", "g"}
    catalogue.merge(catalogue.removed(["f"]))
    assert set(catalogue.functions()) == {"g"}
    deploy(catalogue, spec("f"))
    assert set(catalogue.functions()) == {"f", "g"}


def test_the_same_again_is_nothing_new() -> None:
    catalogue = Catalogue()
    assert len(deploy(catalogue, spec("f"))) == 1
    assert deploy(catalogue, spec("f")) == []
    assert len(deploy(catalogue, spec("f", 1))) == 1
    assert len(deploy(catalogue, spec("f", 1), artifact=b"other")) == 1


def test_hosts_stay_when_a_function_is_deployed_again() -> None:
    catalogue = Catalogue()
    deploy(catalogue, spec("f"))
    catalogue.merge(catalogue.hosted({"f": ("a", "b"), "gone": ("a",)}))
    assert catalogue.hosted({"f": ("a", "b")}) == []
    deploy(catalogue, spec("f", 1))
    assert catalogue.entries["f"].hosts == ("a", "b")


def test_a_copy_learns_what_is_beyond_its_stamp() -> None:
    catalogue, copy = Catalogue(), Catalogue()
    deploy(catalogue, spec("f"))
    copy.merge(catalogue.beyond(copy.stamp))
    deploy(catalogue, spec("g"))
    catalogue.merge(catalogue.removed(["f"]))
    copy.merge(catalogue.beyond(copy.stamp))
    assert copy.entries == catalogue.entries
    assert copy.stamp == catalogue.stamp == 3


@given(
    st.lists(st.tuples(st.sampled_from("fgh"), st.integers(1, 50), st.booleans()), unique_by=lambda e: e[:2]),
    st.randoms(),
)
def test_the_order_of_entries_does_not_matter(given: list[tuple[str, int, bool]], random: object) -> None:
    entries = [CatalogueEntry(name, stamp, spec(name) if there else None) for name, stamp, there in given]
    one, other = Catalogue(), Catalogue()
    one.merge(entries)
    random.shuffle(entries)
    for entry in entries:
        other.merge([entry])
    assert one.entries == other.entries
    assert one.stamp == other.stamp
    assert one.newer(entries) == []
