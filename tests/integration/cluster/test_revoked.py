"""A node that is revoked has lost its orchestrators' rights on all other nodes, as processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from faasmoe.platforms import registry
from faasmoe.platforms.cluster.addresses import read_address
from faasmoe.platforms.cluster.authority.identity import Role
from faasmoe.platforms.cluster.authority.members import Member, MemberBook
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.dialling import connect, dial
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.local.protocol.wire import Lost
from tests import authorities, nodes


def called(agent: nodes.Agent, credentials: Credentials) -> Connection:
    """A connection for calls."""
    return connect(read_address(agent.address), credentials, "calls", dial)[0]


def test_its_orchestrators_call_no_other_node_any_more(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster"
    stolen = authorities.identity(cluster, Role.ORCHESTRATOR, "thief")
    MemberBook(cluster).join("thief", Member(fingerprint="its", host="10.9.9.9", port=1), replace=False)
    with nodes.cluster(tmp_path, "a") as (first,):
        with registry.start("nodes", (), **nodes.options(tmp_path)) as head:
            shown = Credentials(identity=stolen, pool=head.membership._credentials.pool)
            calls = called(first, shown)
            command = [sys.executable, "-m", "faasmoe.cli.main", "nodes", "revoke", "thief"]
            subprocess.run([*command, "--cluster-folder", str(cluster)], check=True, timeout=60)
            with pytest.raises(Lost):
                calls.answered(time.monotonic() + 5)
            calls.close()
            with pytest.raises(LinkRefused, match="certificates of node thief were revoked"):
                called(first, shown)
        first.process.kill()
        first.process.wait()
        with nodes.agent(tmp_path, "a") as again, pytest.raises(LinkRefused, match="thief were revoked"):
            called(again, shown)  # no server has told it
