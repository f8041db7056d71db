from __future__ import annotations

import pytest

from faasmoe.api.openai.responses import ResponseFields
from faasmoe.api.parsed_request import ParsedRequest
from faasmoe.errors import MessageError
from faasmoe.protocol.request import SamplingParams
from faasmoe.readers.messages import Done, pack, read_answer

OWN = ResponseFields(stream_usage="last", service_tier="flex")


def parsed(own: object) -> ParsedRequest[object]:
    return ParsedRequest(prompts=((1, 2),), params=SamplingParams(4), own=own)


def test_an_apis_own_fields_have_their_type_again_after_the_way_from_a_reader() -> None:
    answer = read_answer(pack(Done(parsed(OWN), last=False)))
    assert isinstance(answer, Done)
    assert answer.asked.typed(ResponseFields) == parsed(OWN)


def test_an_api_may_have_no_own_fields() -> None:
    assert parsed(None).typed(type(None)) == parsed(None)


@pytest.mark.parametrize("own", [None, {"stream_usage": "last"}, {"stream_usage": 5, "service_tier": None}])
def test_other_fields_are_a_damaged_message(own: object) -> None:
    with pytest.raises(MessageError, match="ResponseFields"):
        parsed(own).typed(ResponseFields)
