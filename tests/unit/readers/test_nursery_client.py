from __future__ import annotations

import asyncio

import pytest

from faasmoe.errors import MessageError
from faasmoe.readers.messages import (
    LENGTH,
    Fork,
    Forked,
    Job,
    Refused,
    frame,
    pack,
    read_answer,
    read_event,
    read_job,
    read_order,
)
from faasmoe.readers.nursery_client import Lost, Reader


def test_messages_arrive_as_they_were() -> None:
    job = Job("chat", b"\x00{}", 2.5)
    assert read_job(frame(job)[LENGTH.size :]) == job
    refused = Refused("no", None, "code", last=True)
    assert read_answer(frame(refused)[LENGTH.size :]) == refused
    assert read_order(pack(Fork(1, 10))) == Fork(1, 10)
    assert read_event(pack(Forked(1, 77))) == Forked(1, 77)


@pytest.mark.parametrize("read", [read_job, read_answer, read_order, read_event])
@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x91\xa4Evil", b"\x93" * 100_000, pack([1, 2])])
def test_what_is_no_message_is_refused(read, packed: bytes) -> None:
    with pytest.raises(MessageError):
        read(packed)


@pytest.mark.parametrize(
    "sent", [b"", b"\x01", LENGTH.pack(5) + b"abc", LENGTH.pack(2**32 - 1), LENGTH.pack(1) + b"\xc1"]
)
def test_a_reader_that_sends_nonsense_is_lost(sent: bytes) -> None:
    class Writer:
        def write(self, data: bytes) -> None:
            pass

        async def drain(self) -> None:
            pass

    async def ask() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(sent)
        stream.feed_eof()
        reader = Reader(1, 2, (stream, Writer()), asyncio.get_running_loop().create_future())  # type: ignore[arg-type]
        await reader.ask(b"")

    with pytest.raises(Lost):
        asyncio.run(ask())
