"""The bytes of calls and replies. By itself, because instances need nothing else of the contract."""

from __future__ import annotations

Buffer = bytes | bytearray | memoryview
