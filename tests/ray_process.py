"""The process that has a Ray cluster on loopback: python -m tests.ray_process NODES."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

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
            **more,
        )
        self._nodes.append(node)
        return str(node.node_id)

    def remove(self, number: int) -> None:
        """Kill Ray on a node."""
        self._cluster.remove_node(self._nodes[number], allow_graceful=False)

    def drain(self, number: int, seconds: int) -> bool:
        """Tell that a node will be gone in so many seconds."""
        deadline = int((time.time() + seconds) * 1000)
        accepted, _ = self._gcs.drain_node(
            self._nodes[number].node_id,
            autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "a test",
            deadline,
        )
        return bool(accepted)

    def requested(self) -> Any:
        """What the autoscaler was asked for last."""
        return json.loads(self._gcs.internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL, None) or "[]")

    def behead(self) -> None:
        """Kill Ray's head, but for the daemon of its node."""
        self._cluster.head_node.kill_gcs_server()

    def ended(self) -> int:
        """The nodes whose daemon has ended. Ray's workers see a daemon that nobody waited for as one that runs."""
        daemons = [node.all_processes["raylet"][0].process for node in self._nodes]
        return sum(daemon.poll() is not None for daemon in daemons)

    @property
    def _gcs(self) -> GcsClient:
        return GcsClient(address=self.address)

    def end(self) -> None:
        self._cluster.shutdown()


def tell(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    nodes = Nodes()
    for _ in range(int(sys.argv[1])):
        nodes.add()
    tell(nodes.address)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        tell(getattr(nodes, name)(*arguments))
    nodes.end()


if __name__ == "__main__":
    main()
