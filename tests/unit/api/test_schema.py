from __future__ import annotations

import pytest
from pydantic import ValidationError

from faasmoe.api.schema import ChatBody, CompletionBody

PROMPT = {"model": "m", "prompt": "p"}


@pytest.mark.parametrize("prompt", ["text", ["a", "b"], [1, 2], [[1], [2]]])
def test_all_forms_of_prompts_are_taken(prompt: object) -> None:
    assert CompletionBody.model_validate({"model": "m", "prompt": prompt}).prompt == prompt


@pytest.mark.parametrize(
    "extra",
    [
        {"max_tokens": "5"},
        {"temperature": "hot"},
        {"stream": "yes"},
        {"n": 2},
        {"echo": True},
        {"logprobs": 1},
        {"presence_penalty": 0.5},
        {"logit_bias": {"1": 2.0}},
        {"stop": [1]},
        {"prompt": {"text": "p"}},
        {"no_such_field": None},
        {"user": "somebody"},
        {"stream_options": {"include_usage": True}},
        {"stream_options": {"include_usage": True, "more": 1}},
    ],
)
def test_what_is_not_honoured_is_refused(extra: dict) -> None:
    with pytest.raises(ValidationError):
        CompletionBody.model_validate({**PROMPT, **extra})


@pytest.mark.parametrize(
    "extra", [{"n": 1}, {"presence_penalty": 0}, {"logit_bias": {}}, {"echo": False}, {"temperature": 1}]
)
def test_neutral_values_are_taken(extra: dict) -> None:
    assert CompletionBody.model_validate({**PROMPT, **extra}).sampling(3).max_tokens == 3


def test_messages_become_role_and_text() -> None:
    body = ChatBody.model_validate(
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
        }
    )
    assert [m.plain() for m in body.messages] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "ab"},
    ]


def test_two_names_of_one_limit_are_refused() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
    assert ChatBody.model_validate(body).max_tokens == 3
    with pytest.raises(ValidationError, match="give one of them"):
        ChatBody.model_validate({**body, "max_completion_tokens": 4})


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "robot", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
    ],
)
def test_messages_that_cannot_be_served_are_refused(messages: list) -> None:
    with pytest.raises(ValidationError):
        ChatBody.model_validate({"model": "m", "messages": messages})
