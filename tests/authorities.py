"""Authorities of clusters and identities by them, for tests, at any time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from faasmoe.platforms.cluster.authority import authority as authorities
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role, utc_now

PAST, FUTURE = timedelta(days=-60), timedelta(days=60)


def identity(
    folder: Path, role: Role = Role.NODE, name: str = "a", at: timedelta = timedelta()
) -> ClusterIdentity:
    """An identity by the authority in `folder`, as it was made at another time than now."""
    if not authorities.is_there(folder):
        Authority(folder, lambda: utc_now() + 2 * PAST)
    ours = ClusterFolder(folder)
    made = ours.server if role is Role.SERVER else ours.node(name)
    made = ClusterIdentity(made.folder, lambda: utc_now() + at)
    Authority(folder, lambda: utc_now() + at).provide(made, role, name)
    return ClusterIdentity(made.folder)


def server(folder: Path, at: timedelta = timedelta()) -> ClusterIdentity:
    """The identity of the server."""
    return identity(folder, Role.SERVER, "server", at)
