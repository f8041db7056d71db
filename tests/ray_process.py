"""The process that has a Ray cluster on loopback: python -m tests.ray_process NODES."""

from __future__ import annotations

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

ROOM = 2 << 30  # bytes of memory that Ray counts on each node


class Nodes:
    """What tests can do with the cluster."""

    def __init__(self) -> None:
        self._cluster = Cluster(shutdown_at_exit=True)
        self._nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, cpus: int = 1) -> str:
        more = {"include_dashboard": False} if not self._nodes else {}
        node = self._cluster.add_node(
            node_ip_address=f"127.0.0.{2 + len(self._nodes)}",  # Ray takes no cluster at 127.0.0.1
            num_cpus=cpus,
            memory=ROOM,
            object_store_memory=80 << 20,
            wait=False,
            **more,
        )
        self._nodes.append(node)
        return str(node.node_id)

    def ready(self) -> None:
        self._cluster.wait_for_nodes()

    def remove(self, number: int) -> None:
        self._cluster.remove_node(self._nodes[number], allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


def tell(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    nodes = Nodes()
    for _ in range(int(sys.argv[1])):
        nodes.add()
    nodes.ready()
    tell(nodes.address)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        tell(getattr(nodes, name)(*arguments))
    nodes.end()


if __name__ == "__main__":
    main()
