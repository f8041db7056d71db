"""How other processes of this machine find a pool: a file in the run folder of its head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from faasmoe.errors import PlatformError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.util.folders import run_folder

POOL = "cluster.json"


def pools() -> list[Path]:
    """Run folders of this user's pools. Raises `OptionError` if the parent of run folders is unsafe."""
    return [folder for folder in run_folder.live() if (folder / POOL).exists()]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFile:
    """What a client needs to know of a pool."""

    platform: str  # name of the platform
    pool: str
    nodes: tuple[NodeAddress, ...]
    identity: Path  # folder of the key and certificate of the pool's processes on this machine
    server: Path | None = None  # file with the server's certificate, where it is not that

    def write(self, folder: Path) -> None:
        """Write or replace the file. Raises `OSError`."""
        nodes = [[node.host, node.port] for node in self.nodes]
        raw = {"platform": self.platform, "pool": self.pool, "nodes": nodes, "identity": str(self.identity)}
        if self.server:
            raw["server"] = str(self.server)
        draft = folder / f"{POOL}.new"
        draft.write_text(json.dumps(raw))
        draft.rename(folder / POOL)

    @classmethod
    def read(cls, folder: Path) -> PoolFile:
        """Raises `PlatformError` if there is none."""
        try:
            raw = json.loads((folder / POOL).read_text())
            nodes = tuple(NodeAddress(host, port) for host, port in raw["nodes"])
            server = Path(raw["server"]) if "server" in raw else None
            identity = Path(raw["identity"])
            return cls(platform=raw["platform"], pool=raw["pool"], nodes=nodes, identity=identity, server=server)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlatformError("cluster", "(all)", f"no pool of a cluster is at {folder}") from error
