"""What clients do by themselves when nodes are lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement
from faasmoe.platforms.cluster.placement.plan import place_missing, plan
from tests.unit.platforms.cluster.placement.placements import functions_and_nodes, layers_of, nodes_of, suffices


@given(functions_and_nodes(), st.data())
def test_what_is_hosted_stays_and_the_rest_finds_room_where_there_is_any(
    given: tuple[list[Function], list[Node]], data: st.DataObject
) -> None:
    functions, nodes = given
    lost = data.draw(st.sets(st.sampled_from([node.name for node in nodes]), max_size=len(nodes) - 1))
    left = [node for node in nodes if node.name not in lost]
    before = plan(functions, nodes).hosts
    kept = Placement({name: tuple(host for host in hosts if host not in lost) for name, hosts in before.items()})
    after = place_missing(functions, left, kept)
    assert after.hosts.keys() == {function.name for function in functions}
    for name, hosts in kept.hosts.items():
        assert after.hosts[name] == hosts if hosts else len(after.hosts[name]) == 1
    if suffices(functions, left) and all(len(hosts) == 1 for hosts in before.values()):
        used = after.memory_of(functions)
        assert all(used.get(node.name, 0) <= node.memory for node in left)
    assert place_missing(functions, left, kept) == after


def test_a_lost_nodes_functions_are_spread_over_the_others() -> None:
    functions = layers_of(6, 60, 0.0)
    nodes = nodes_of(4, functions, room=2.0)
    before = plan(functions, nodes).hosts
    kept = Placement({name: tuple(host for host in hosts if host != "node0") for name, hosts in before.items()})
    after = place_missing(functions, nodes[1:], kept)
    for layer in range(6):
        counts = [sum(name.startswith(f"layer{layer}.") for name in after.functions_of(n.name)) for n in nodes[1:]]
        assert max(counts) - min(counts) <= 1
