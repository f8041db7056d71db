"""A server on a machine of a Ray cluster, which does what its standard input says, a method of `Server` a line.

python -m tests.ray_server FOLDER ADDRESS
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from faasmoe.errors import OptionError
from faasmoe.platforms import registry
from faasmoe.platforms.base import Call
from faasmoe.platforms.ray.platform import RayPlatform
from tests.conformance.conftest import soon, spec

COUNT = 4


class Server:
    """What tests can have it do."""

    def __init__(self, platform: RayPlatform, folder: Path) -> None:
        self._platform = platform
        (folder / "artifact").write_text("A:")
        platform.deploy([spec(f"f{i}", "echo", folder / "artifact") for i in range(COUNT)])

    def hosts(self) -> list[str]:
        """Those of nodes that take calls."""
        return sorted(link.address.host for link in self._platform.membership.ready())

    def answers(self) -> bool:
        replies = self._platform.invoke_many([Call(f"f{i}", [b"x"]) for i in range(COUNT)], soon())
        return [bytes(reply) for reply in replies] == [b"A:x"] * COUNT


def started(given: dict[str, object]) -> RayPlatform:
    """A platform, as soon as Ray has started on this machine."""
    for _ in range(20):
        with suppress(OptionError):
            platform = registry.start("ray", (), **given)
            assert isinstance(platform, RayPlatform)
            return platform
        time.sleep(1)
    raise AssertionError("Ray has not started")


def main() -> None:
    folder, address = Path(sys.argv[1]), sys.argv[2]
    given = {"address": address, "cluster_folder": str(folder / "keys"), "node_gib": 0.25, "start_seconds": 60.0}
    with started(given) as platform:
        server = Server(platform, folder)
        for line in sys.stdin:
            sys.stdout.write(json.dumps(getattr(server, line.strip())()) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
