from __future__ import annotations

import msgspec
import pytest

from faasmoe.errors import RequestError
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams, ScoredToken, TokenLogprob

NAN = float("nan")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("temperature", -1.0),
        ("temperature", 2.1),
        ("temperature", NAN),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", NAN),
        ("top_k", -2),
        ("min_p", -0.1),
        ("min_p", NAN),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", float("inf")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 11.0),
        ("logit_bias", ((1, 101.0),)),
        ("logit_bias", ((1, NAN),)),
        ("logprobs", 21),
        ("logprobs", -1),
        ("seed", 2**63),
        ("stop", ("",)),
        ("stop", tuple(map(str, range(65)))),
        ("stop", ("a" * 4097,)),
    ],
)
def test_values_out_of_range_name_the_field(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=field) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param == field


def test_no_tokens_are_asked_for_with_echo_only() -> None:
    assert SamplingParams(max_tokens=0, echo=True).max_tokens == 0


@pytest.mark.parametrize(
    ("params", "needs"),
    [({}, False), ({"echo": True}, False), ({"logprobs": 2}, False), ({"echo": True, "logprobs": 0}, True)],
)
def test_only_echoed_logprobs_need_all_logits(params: dict, needs: bool) -> None:
    assert GenerationRequest("a", (1,), SamplingParams(**params)).needs_all_logits is needs


@pytest.mark.parametrize(
    "value",
    [
        GenerationRequest(
            "a", (1, 2), SamplingParams(seed=-5, stop=("x",), logit_bias=((3, 1.5),), logprobs=2), tenant="t"
        ),
        Piece(
            "é",
            3,
            "stop",
            logprobs=(TokenLogprob(ScoredToken(1, b"\xc3", -0.5), (ScoredToken(2, b"", None),), 4),),
        ),
    ],
)
def test_requests_and_pieces_travel(value: object) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value)) == value
