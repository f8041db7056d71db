from __future__ import annotations

import pytest

from faasmoe.api.parsed_request import Bounds
from faasmoe.errors import MessageError
from faasmoe.readers.messages import (
    LENGTH,
    Job,
    ReaderOptions,
    ReaderSetup,
    Refused,
    SetupFailed,
    frame,
    pack,
    read_answer,
    read_job,
    read_options,
    read_setup,
    read_setup_failure,
)


def test_messages_arrive_as_they_were() -> None:
    job = Job("chat", b"\x00{}", 2.5)
    assert read_job(frame(job)[LENGTH.size :]) == job
    refused = Refused("no", None, "code", last=True)
    assert read_answer(frame(refused)[LENGTH.size :]) == refused
    setup = ReaderSetup("/tokenizer", Bounds("m", 100, 200), True)
    assert read_setup(pack(setup)) == setup
    assert read_setup_failure(pack(SetupFailed("no"))) == SetupFailed("no")
    assert read_options(pack(ReaderOptions(10))) == ReaderOptions(10)


@pytest.mark.parametrize("read", [read_job, read_answer, read_setup, read_setup_failure, read_options])
@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x91\xa4Evil", b"\x93" * 100_000, pack([1, 2])])
def test_what_is_no_message_is_refused(read, packed: bytes) -> None:
    with pytest.raises(MessageError):
        read(packed)
