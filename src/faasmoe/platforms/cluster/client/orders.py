"""Orders of a client to several nodes at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from faasmoe.errors import OptionError, PlatformError, ServingError, UnknownFunction, UserError
from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.client.steward import ORDER_SECONDS
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    AskNode,
    CatalogueReport,
    ClusterMessage,
    DrainNode,
    Failure,
    Finished,
    Install,
    NodeReport,
    Order,
    PrewarmFunctions,
)
from faasmoe.platforms.cluster.signed_entries import signed
from faasmoe.platforms.cluster.weights.contents import contents_of
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.local.protocol.wire import Lost

_M = TypeVar("_M", bound=ClusterMessage)


class ClusterOrders:
    """For all threads. Nodes that are lost meanwhile are left out: they learn what they missed when they join again."""

    def __init__(self, membership: Membership, sign: Callable[[bytes], bytes]) -> None:
        """`sign` signs with the server's key."""
        self._membership = membership
        self._sign = sign

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """See `Platform.deploy`. What a node refuses is deployed on none."""
        pairs = list(zip(specs, contents_of(specs, DigestBook.of_user()), strict=True))
        before = list(self._membership.hosts)
        entries = self._membership.enter(lambda catalogue: signed(catalogue.deployed(pairs), self._sign))
        try:
            self.everywhere(Install(tuple(entries)))
        except (ServingError, UserError):
            added = [entry.name for entry in entries if entry.name not in before]
            undone = self._membership.enter(lambda catalogue: catalogue.removed(added))
            self.exchange([(link, Install(tuple(undone))) for link in self._membership.callable()], Finished)
            raise

    def remove(self, names: Sequence[str]) -> None:
        """See `Platform.remove`."""
        self.check_known(names)
        entries = self._membership.enter(lambda catalogue: catalogue.removed(names))
        self.everywhere(Install(tuple(entries)))

    def check_known(self, names: Iterable[str]) -> None:
        """Raises `UnknownFunction` if one is not deployed, also to the knowledge of the nodes."""
        if all(name in self._membership.hosts for name in names):
            return
        self._refresh()
        for name in names:
            if name not in self._membership.hosts:
                raise UnknownFunction(self._membership.platform, name, "it is not deployed")

    def _refresh(self) -> None:
        """Learn what other clients have deployed and removed, from the first node that answers."""
        for link in self._membership.ready():
            try:
                report = link.ask(AskCatalogue(self._membership.catalogue.stamp), CatalogueReport, ORDER_SECONDS)
            except Lost:
                continue
            if isinstance(report, CatalogueReport):
                self._membership.learn(report.entries)
                return

    def everywhere(self, order: Order) -> None:
        """Have all nodes carry out an order. Raises `PlatformError` if there is none, or what one of them answers."""
        if not self.exchange([(link, order) for link in self._membership.callable()], Finished):
            raise PlatformError(
                self._membership.platform, "(all)", f"no node is there: {self._membership.causes()}"
            )

    def by_host(self, names: Sequence[str], order: Callable[[tuple[str, ...]], Order]) -> None:
        """Have the first host of each function carry out an order for its functions. Raises as `everywhere` does."""
        self.check_known(names)
        hosts = self._membership.hosts
        links = {link.name: link for link in self._membership.callable()}
        orders = []
        for node, link in links.items():
            if its := tuple(name for name in names if hosts[name][:1] == (node,)):
                orders.append((link, order(its)))
        self.exchange(orders, Finished)

    def prepare(self, link: NodeLink, function: str) -> None:
        """Have a node get a function's weights, whoever hosts it. Does not wait."""

        def ask() -> None:
            with suppress(Lost):  # if it fails, the node says so when it is called
                link.ask(PrewarmFunctions((function,)), Finished, ORDER_SECONDS)

        threading.Thread(target=ask, name="prepare", daemon=True).start()

    def drain(self, node: str, wanted: bool) -> None:
        """Have all functions leave a node, or let them come again. Raises `OptionError` if it is not there."""
        self._raise(self._link(node).ask(DrainNode(wanted), Finished, ORDER_SECONDS), node)

    def left_on(self, node: str) -> list[str]:
        """What a node still runs: functions that it hosts or has an instance of, by name, and orchestrators.

        Raises `OptionError`, `PlatformError`.
        """
        report = self._raise(self._link(node).ask(AskNode(), NodeReport, ORDER_SECONDS), node)
        hosted = {name for name, hosts in self._membership.hosts.items() if node in hosts}
        its = hosted | {function.name for function in report.pool.functions if function.instances}
        return [*(["an orchestrator"] * report.orchestrators), *sorted(its)]

    def _link(self, node: str) -> NodeLink:
        there = {link.name: link for link in self._membership.present()}
        if node not in there:
            raise OptionError(
                f"no node {node} is there; those of the cluster are {', '.join(there) or 'all lost'}"
            )
        return there[node]

    def _raise(self, answer: _M | Failure, node: str) -> _M:
        if isinstance(answer, Failure):
            raise answer.error_of(self._membership.platform, node)
        return answer

    def reports(self) -> list[tuple[NodeLink, NodeReport]]:
        """What the nodes that are there tell of themselves."""
        reports = self.exchange([(link, AskNode()) for link in self._membership.present()], NodeReport)
        for link, report in reports:
            self._membership.meters.report(link.incarnation, report)
        return reports

    def exchange(self, orders: Sequence[tuple[NodeLink, Order]], wanted: type[_M]) -> list[tuple[NodeLink, _M]]:
        """Have nodes carry out orders side by side, and return their answers. Raises the error of the first refusal."""
        asked, answers, refusals = [], [], []
        for link, order in orders:
            try:
                asked.append((link, link.send(order, ORDER_SECONDS)))
            except Lost:
                continue
        for link, answer in asked:
            try:
                result = answer(wanted)
            except Lost:
                continue
            if isinstance(result, Failure):
                refusals.append(result.error_of(self._membership.platform, link.name))
            else:
                answers.append((link, result))
        if refusals:
            raise refusals[0]
        return answers
