from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.platforms.local.client import control as module
from faasmoe.platforms.local.client.control import Control
from faasmoe.platforms.local.protocol import messages, wire
from faasmoe.platforms.local.protocol.messages import Completed, Remove


class Connection:
    """A connection that counts how often it is closed."""

    closed = 0

    def settimeout(self, _: float) -> None:
        pass

    def sendall(self, _: bytes) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


def test_a_connection_in_use_while_another_thread_closes_is_closed_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    control, connection = Control(tmp_path), Connection()

    def answered(_: Connection) -> bytes:
        control.close()
        return messages.pack(Completed())[wire.HEAD :]

    monkeypatch.setattr(module, "connect", lambda *_: connection)
    monkeypatch.setattr(module.wire, "receive", answered)
    assert control.ask(Remove(("f",)), Completed) == Completed()
    assert connection.closed == 1
    control.close()
    assert connection.closed == 1
