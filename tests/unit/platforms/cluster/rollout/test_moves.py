from __future__ import annotations

from faasmoe.platforms.cluster.placement.placement import Move, Placement
from faasmoe.platforms.cluster.rollout.copies import Copies, CopyState
from faasmoe.platforms.cluster.rollout.moves import PREWARMS, Moves

BUDGETS = {"a": 20, "b": 20}


def copies_of(**nodes: list[str]) -> Copies:
    copies = Copies()
    for node, functions in nodes.items():
        for function in functions:
            copies.memory[function] = 10
            copies.put(function, node, CopyState.READY)
    return copies


def ready(copies: Copies) -> dict[str, tuple[str, ...]]:
    return copies.hosts((CopyState.READY,), ("a", "b", "c"))


def test_a_copy_stops_only_when_another_one_is_ready() -> None:
    copies = copies_of(a=["f"])
    moves = Moves(Placement({"f": ("b",)}, (Move("f", "b", "a"),)))
    assert moves.stops(copies, ready(copies)) == []
    assert moves.prewarms(copies, BUDGETS) == [("f", "b")]
    assert copies.state("f", "b") is CopyState.WARMING
    assert moves.prewarms(copies, BUDGETS) == []
    assert moves.stops(copies, ready(copies)) == []
    copies.put("f", "b", CopyState.READY)
    assert moves.stops(copies, ready(copies)) == [("f", "a")]
    assert copies.state("f", "a") is CopyState.STOPPING
    assert moves.finished


def test_a_copy_that_nothing_replaces_stops_while_others_are_ready() -> None:
    copies = copies_of(a=["f"], b=["f"])
    moves = Moves(Placement({"f": ("b",)}, (Move("f", None, "a"),)))
    copies.put("f", "b", CopyState.WARMING)
    assert moves.stops(copies, ready(copies)) == []
    copies.put("f", "b", CopyState.READY)
    assert moves.stops(copies, ready(copies)) == [("f", "a")]


def test_of_two_that_could_go_one_stays() -> None:
    copies = copies_of(a=["f"], b=["f"])
    moves = Moves(Placement({"f": ()}, (Move("f", None, "a"), Move("f", None, "b"))))
    assert moves.stops(copies, ready(copies)) == [("f", "a")]
    assert not moves.finished


def test_a_node_is_never_over_its_budget() -> None:
    copies = copies_of(a=["f", "g"], b=["h"])
    moves = Moves(Placement({}, (Move("f", "b", "a"), Move("g", "b", "a"), Move("h", "a", "b"))))
    assert moves.prewarms(copies, BUDGETS) == [("f", "b")]
    copies.put("f", "b", CopyState.READY)
    assert moves.stops(copies, ready(copies)) == [("f", "a")]
    assert moves.prewarms(copies, BUDGETS) == []  # it is stopping
    copies.remove("f", "a")
    assert moves.prewarms(copies, BUDGETS) == [("h", "a")]
    copies.put("h", "a", CopyState.READY)
    assert moves.stops(copies, ready(copies)) == [("h", "b")]
    copies.remove("h", "b")
    assert moves.prewarms(copies, BUDGETS) == [("g", "b")]


def test_a_node_prewarms_a_few_at_a_time() -> None:
    names = [f"f{i}" for i in range(5)]
    copies = Copies()
    copies.memory.update(dict.fromkeys(names, 1))
    moves = Moves(Placement({}, tuple(Move(name, "a") for name in names)))
    started = moves.prewarms(copies, BUDGETS)
    assert started == [(name, "a") for name in names[:PREWARMS]]
    copies.put("f0", "a", CopyState.READY)
    assert len(moves.prewarms(copies, BUDGETS)) == 1


def test_a_copy_that_is_there_is_not_loaded_again_but_one_that_stops_is() -> None:
    copies = copies_of(a=["f"], b=["f"])
    moves = Moves(Placement({"f": ("b",)}, (Move("f", "b", "a"),)))
    assert moves.prewarms(copies, BUDGETS) == []
    assert moves.stops(copies, ready(copies)) == [("f", "a")]
    copies = copies_of(a=["f"], b=["f"])
    copies.put("f", "b", CopyState.STOPPING)
    moves = Moves(Placement({"f": ("b",)}, (Move("f", "b", "a"),)))
    assert moves.prewarms(copies, BUDGETS) == []
    copies.remove("f", "b")
    assert moves.prewarms(copies, BUDGETS) == [("f", "b")]


def test_nothing_begins_on_a_node_that_may_not_host() -> None:
    copies = copies_of(a=["f"])
    moves = Moves(Placement({"f": ("c",)}, (Move("f", "c", "a"),)))
    assert moves.prewarms(copies, BUDGETS) == []
    assert not moves.finished


def test_functions_without_a_host_come_first_where_there_is_room_for_all() -> None:
    copies = copies_of(b=["moved"])
    copies.memory.update(more=10, homeless=10)
    steps = (Move("moved", "a", "b"), Move("more", "a"), Move("homeless", "a"))
    placement = Placement({"moved": ("a",), "more": ("a", "b"), "homeless": ("a",)}, steps)
    assert Moves(placement).prewarms(copies, {"a": 30})[0] == ("homeless", "a")
    copies = copies_of(b=["moved"])
    copies.memory.update(more=10, homeless=10)
    assert Moves(placement).prewarms(copies, {"a": 20})[0] == ("moved", "a")
