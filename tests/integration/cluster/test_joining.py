"""Nodes that join a server by a token, as processes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from faasmoe.platforms import registry
from faasmoe.platforms.base import Call, Platform
from tests import nodes
from tests.conformance.conftest import soon, spec
from tests.waiting import wait_until


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "faasmoe.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def answers(platform: Platform) -> list[bytes]:
    return [bytes(reply) for reply in platform.invoke_many([Call("f", [b"1"])], soon())]


def test_from_a_token_to_a_node_that_stays(tmp_path: Path) -> None:
    server, token, free = tmp_path / "server", tmp_path / "token", nodes.free_port()
    (tmp_path / "artifact").write_text("A:")
    created = run("nodes", "token", "create", "--cluster-folder", str(server))
    assert (created.returncode, created.stdout.count("\n")) == (0, 1)
    token.write_text(created.stdout)
    token.chmod(0o600)
    options = {"join": f"127.0.0.1:{free}", "cluster_folder": str(server)}
    joining = ["--join", options["join"]]
    with ThreadPoolExecutor(1) as other, ExitStack() as stack:
        starting = other.submit(registry.start, "nodes", (), **options)  # waits for a node
        agent = stack.enter_context(nodes.agent(tmp_path, "a", *joining, "--token-file", str(token)))
        with starting.result(30) as head:
            head.deploy([spec("f", "echo", tmp_path / "artifact")])
            assert answers(head) == [b"A:1"]
            wrong = run(
                "node", "--name", "b", "--listen", "127.0.0.1:0", *joining, "--cluster-folder", str(tmp_path / "b")
            )
            assert (wrong.returncode, "node b has no certificate" in wrong.stderr) == (2, True)
            agent.process.kill()
            agent.process.wait()
            token.unlink()
            again = stack.enter_context(nodes.agent(tmp_path, "a", *joining))
            assert again.address != agent.address
            assert wait_until(lambda: [str(link.address) for link in head.membership.links] == [again.address])
            assert answers(head) == [b"A:1"]
        with registry.start("nodes", (), **options) as head:  # which remembers its members
            head.deploy([spec("f", "echo", tmp_path / "artifact")])
            assert answers(head) == [b"A:1"]
            assert run("nodes", "remove", "a", "--cluster-folder", str(server)).returncode == 0
            (link,) = head.membership.links
            assert wait_until(lambda: head.membership.state(link) == "draining")  # to nowhere, as it is the last
            assert run("nodes", "revoke", "a", "--cluster-folder", str(server)).returncode == 0
            assert wait_until(lambda: link.refused and "its certificate was revoked" in link.cause)
