"""A membership whose links and steward do what a test says."""

from __future__ import annotations

from pathlib import Path

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.client.steward import Steward
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import Finished, Install
from tests.unit.clocks import Clock
from tests.unit.platforms.cluster.client.links import FakeLink, address


class Members(Membership):
    """A membership of fake links, and its steward, which works when the test says so."""

    def __init__(self, head: bool = True) -> None:
        self.clock = Clock()
        super().__init__(
            "nodes", Credentials(identity=ClusterIdentity(Path()), pool="p", head=head), FakeLink, self.clock
        )
        self.steward = Steward(self)

    def link(self, name: str) -> FakeLink:
        """The newest link to a node's address."""
        return next(link for link in self.links if link.address == address(name) and not link.retires)

    def states(self) -> dict[str, str]:
        return {link.name: self.state(link) for link in self.links}

    def install(self, count: int = 4, memory: int = 10) -> None:
        specs = [FunctionSpec(f"f{i}", "m:a", Path("/a"), memory=memory, reading=memory) for i in range(count)]
        entries = self.enter(lambda catalogue: catalogue.deployed([(spec, None) for spec in specs]))
        for link in self.present():
            link.ask(Install(tuple(entries)), Finished)
        self.work()

    def work(self) -> None:
        """Have the steward do all that there is to do."""
        for _ in range(5):
            self.steward.step(0.0)

    def have(self, names: str) -> None:
        """These nodes alone, all of them ready."""
        self.set_nodes([address(name) for name in names])
        for name in names:
            if not self.link(name).epoch:
                self.link(name).join()
        self.work()
        assert all(self.states()[name] == "ready" for name in names)

    def used(self) -> set[str]:
        return {node for hosts in self.hosts.values() for node in hosts}
