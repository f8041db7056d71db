"""A model by its hub id, from a hub of our own on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import save_tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """The two endpoints that a download needs."""

    folder: Path

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/tiny"):
            files = [
                {"rfilename": f.name, "path": f.name, "type": "file", "size": f.stat().st_size, "oid": "0" * 40}
                for f in self.folder.iterdir()
            ]
            found = files if "/tree/" in path else {"id": "org/tiny", "sha": COMMIT, "siblings": files}
            self._send(json.dumps(found).encode(), "application/json", with_body)
        elif path.startswith("/org/tiny/resolve/"):
            self._send((self.folder / path.rpartition("/")[2]).read_bytes(), "application/octet-stream", with_body)
        else:
            self.send_error(404)

    def _send(self, body: bytes, kind: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "repository"
    save_tiny("olmoe", folder)
    handler = type("Handler", (Hub,), {"folder": folder})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(tmp_path: Path, hub: str, *command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "cache"), **extra}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


INSPECT = ("-m", "faasmoe.cli.main", "inspect")
RESOLVE = (
    "from faasmoe.model.source import resolve; print(*(f.name for f in resolve('org/tiny').folder.iterdir()))"
)


def test_a_hub_id_is_downloaded_and_then_found_offline(hub: str, tmp_path: Path) -> None:
    first = run(tmp_path, hub, *INSPECT, "org/tiny", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["model"] == "org/tiny"
    assert "100%" in first.stderr  # the progress bar
    again = run(tmp_path, hub, "-c", RESOLVE, HF_HUB_OFFLINE="1")
    assert sorted(again.stdout.split()) == sorted(file.name for file in (tmp_path / "repository").iterdir())


def test_an_unknown_id_is_one_line(hub: str, tmp_path: Path) -> None:
    done = run(tmp_path, hub, *INSPECT, "org/other")
    assert done.returncode == 2
    assert done.stderr.startswith("error: org/other")
    assert len(done.stderr.strip().splitlines()) == 1
