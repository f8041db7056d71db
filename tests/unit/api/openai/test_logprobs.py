from __future__ import annotations

import msgspec
import pytest
from openai.types.chat.chat_completion import ChoiceLogprobs
from openai.types.completion_choice import Logprobs

from faasmoe.api.openai.logprobs import Collected, Shape, of_chat, of_completion
from faasmoe.protocol.request import ScoredToken, TokenLogprob

FIRST = TokenLogprob(ScoredToken(9, b"It", None), (), 0)
WAS = TokenLogprob(ScoredToken(1, b" was", -1.5), (ScoredToken(2, b" is", -0.5), ScoredToken(1, b" was", -1.5)), 2)
HALF = TokenLogprob(ScoredToken(3, b" \xe5\xa4", -2.0), (ScoredToken(4, b"\xe5", -0.25),), 6)


def test_completions_have_four_lists() -> None:
    shaped = of_completion([FIRST, WAS, HALF])
    assert shaped == {
        "tokens": ["It", " was", "bytes: \\xe5\\xa4"],
        "token_logprobs": [None, -1.5, -2.0],
        "top_logprobs": [None, {" was": -1.5, " is": -0.5}, {"bytes: \\xe5\\xa4": -2.0, "bytes:\\xe5": -0.25}],
        "text_offset": [0, 2, 6],
    }
    assert set(shaped) == set(Logprobs.model_fields)


def test_of_two_tokens_with_one_name_the_chosen_one_is_told() -> None:
    score = TokenLogprob(ScoredToken(1, b"a", -3.0), (ScoredToken(2, b"a", -0.5),), 0)
    assert (of_completion([score]) or {})["top_logprobs"] == [{"a": -3.0}]


def test_chats_have_an_entry_for_each_token() -> None:
    shaped = of_chat([WAS, HALF])
    assert shaped == {
        "content": [
            {
                "token": " was",
                "logprob": -1.5,
                "bytes": [32, 119, 97, 115],
                "top_logprobs": [
                    {"token": " is", "logprob": -0.5, "bytes": [32, 105, 115]},
                    {"token": " was", "logprob": -1.5, "bytes": [32, 119, 97, 115]},
                ],
            },
            {
                "token": " \\xe5\\xa4",
                "logprob": -2.0,
                "bytes": [32, 0xE5, 0xA4],
                "top_logprobs": [{"token": "\\xe5", "logprob": -0.25, "bytes": [0xE5]}],
            },
        ],
        "refusal": None,
    }
    assert ChoiceLogprobs.model_validate(shaped, strict=True).model_dump() == shaped


def test_not_asked_for_is_null() -> None:
    assert of_completion([]) is None
    assert of_chat([]) is None


@pytest.mark.parametrize("shape", [of_chat, of_completion])
def test_what_is_written_as_it_comes_is_what_is_written_at_once(shape: Shape) -> None:
    collected = Collected(shape)
    for scores in ([FIRST], [], [WAS, HALF]):
        collected.add(scores)
    assert msgspec.json.decode(msgspec.json.encode(collected.value())) == shape([FIRST, WAS, HALF])
    assert Collected(shape).value() is None
