"""What the tests of the embedded platform share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.platforms.base import Call
from faasmoe.platforms.local.platform import LocalPlatform
from tests.conformance.conftest import soon


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.write_text("A:")
    return path


@pytest.fixture
def platform() -> Iterator[LocalPlatform]:
    with LocalPlatform() as running:
        yield running


def ask(platform: LocalPlatform, *functions: str, payload: bytes = b"", seconds: float = 60) -> list[bytes]:
    replies = platform.invoke_many([Call(name, [payload]) for name in functions], soon(seconds))
    return [bytes(reply) for reply in replies]
