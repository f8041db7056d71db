"""Paths as clients and proxies write them: with a slash at the end, or below the path of a proxy."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class Paths:
    """ASGI middleware in front of all that looks at paths: keys and limits hang on them.

    `root` is the path below which a proxy serves the API; requests may come with it or without.
    """

    def __init__(self, app: ASGIApp, root: str = "") -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a plain path."""
        if scope["type"] == "http":
            path = scope["path"]
            if self._root and (path == self._root or path.startswith(f"{self._root}/")):
                path = path[len(self._root) :] or "/"
            scope = {**scope, "path": path.rstrip("/") or "/"}
        await self._app(scope, receive, send)
