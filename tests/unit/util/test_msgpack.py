from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from faasmoe.errors import MessageError
from faasmoe.util.msgpack import decode, path_of_text, text_of_path

DECODER = msgspec.msgpack.Decoder(dict[str, int])


def test_a_message_is_decoded() -> None:
    assert decode(DECODER, msgspec.msgpack.encode({"a": 1})) == {"a": 1}


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93" * 100_000, b"\x81\xa1\xff\x01", bytearray(b"\x01")])
def test_what_is_malformed_is_told_by_its_length_alone(data: bytes | bytearray) -> None:
    with pytest.raises(MessageError, match=f"a malformed message of {len(data)} bytes: "):
        decode(DECODER, data)


def test_paths_go_as_text_and_nothing_else_does() -> None:
    paths = [Path("/a b"), Path("é")]
    sent = msgspec.msgpack.encode(paths, enc_hook=text_of_path)
    assert msgspec.msgpack.decode(sent) == ["/a b", "é"]
    assert decode(msgspec.msgpack.Decoder(list[Path], dec_hook=path_of_text), sent) == paths
    with pytest.raises(NotImplementedError, match="object"):
        msgspec.msgpack.encode(object(), enc_hook=text_of_path)
    for wrong, kind in (([1], list[Path]), (["a"], list[complex])):
        with pytest.raises(MessageError):
            decode(msgspec.msgpack.Decoder(kind, dec_hook=path_of_text), msgspec.msgpack.encode(wrong))
