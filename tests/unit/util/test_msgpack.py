from __future__ import annotations

import msgspec
import pytest

from faasmoe.errors import MessageError
from faasmoe.util.msgpack import decode

DECODER = msgspec.msgpack.Decoder(dict[str, int])


def test_a_message_is_decoded() -> None:
    assert decode(DECODER, msgspec.msgpack.encode({"a": 1})) == {"a": 1}


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93" * 100_000, b"\x81\xa1\xff\x01", bytearray(b"\x01")])
def test_what_is_malformed_is_told_by_its_length_alone(data: bytes | bytearray) -> None:
    with pytest.raises(MessageError, match=f"a malformed message of {len(data)} bytes: "):
        decode(DECODER, data)
