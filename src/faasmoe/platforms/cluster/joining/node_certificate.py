"""How a node comes to its certificate: from the authority, if that is on this machine, or by joining."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority import authority as authorities
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.authority.identity import Role
from faasmoe.platforms.cluster.authority.tokens import read_token
from faasmoe.platforms.cluster.joining.enrolment import Enrolment
from faasmoe.platforms.cluster.joining.join_messages import NodeOffer
from faasmoe.platforms.cluster.joining.renewal import PERIOD, SOON, Renewal
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.local.protocol.wire import Lost

log = logging.getLogger(__name__)


class NodeCertificate:
    """A node's certificate in its cluster, from `prepare` on."""

    def __init__(
        self, name: str, folder: ClusterFolder, server: NodeAddress | None, token_file: Path | None
    ) -> None:
        """`server` is where the node joins, if it does; the file with its token is read if it is needed."""
        if token_file is not None and server is None:
            raise OptionError("--token-file needs --join HOST:PORT")
        authorities.require_extra()
        self.identity = folder.node(name)
        self._name = name
        self._folder = folder.path
        self._server = server
        self._token_file = token_file

    def prepare(self, listen: NodeAddress) -> None:
        """Have a certificate, unless a token is to bring it. Raises `OptionError` if there is no way to get one.

        A node that only this machine can reach makes the authority if there is none, as the server would.
        """
        if self._token_file is not None:
            if not self._is_good():
                read_token(self._token_file)  # so that what is wrong with it is told at once
            return
        trial = self._server is None and listen.is_loopback and not self.identity.exists
        if trial or authorities.is_there(self._folder):
            Authority(self._folder).provide(self.identity, Role.NODE, self._name)
        elif self.identity.exists:
            self.identity.check()
        else:
            missing = "--token-file FILE" if self._server else "--join HOST:PORT and --token-file FILE"
            raise OptionError(f"node {self._name} has no certificate in {self.identity.folder}: give it {missing}")

    @contextmanager
    def held(self, listen: NodeAddress, memory_budget: int | None) -> Iterator[None]:
        """Be a member, and keep the certificate. Raises `OptionError` if the server refuses the node."""
        if self._server is None:
            renewal = Renewal(self._renew_here)
        else:
            offer = NodeOffer(listen.host, listen.port, memory_budget)
            enrolment = Enrolment(self._name, self.identity, self._server, offer)
            renewal = Renewal(enrolment.announce, self._enter(enrolment))
        with renewal:
            yield

    def _enter(self, enrolment: Enrolment) -> float:
        """Become a member. Returns the seconds until it is time to look after that again."""
        if self._is_good():
            try:
                enrolment.announce()
                return PERIOD
            except LinkRefused as error:
                if self._token_file is None:
                    raise OptionError(f"node {self._name} is refused by {self._server}: {error}") from error
            except Lost as error:
                log.warning(
                    "node %s has a certificate, and goes on without %s: %s", self._name, self._server, error
                )
                return SOON
        if self._token_file is None:
            self.identity.check()
        else:
            enrolment.join(read_token(self._token_file))
        return PERIOD

    def _is_good(self) -> bool:
        try:
            self.identity.check()
        except OptionError:
            return False
        return True

    def _renew_here(self) -> None:
        if authorities.is_there(self._folder):
            Authority(self._folder).provide(self.identity, Role.NODE, self._name)
        elif authorities.is_due(self.identity):
            log.warning("the certificate of node %s ends on %s UTC, and without --join nobody renews it", self._name,
                        self.identity.period()[1])  # fmt: skip
