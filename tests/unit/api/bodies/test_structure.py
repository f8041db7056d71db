from __future__ import annotations

import json

import pytest

from faasmoe.api.bodies.structure import LEAST_VALUES, MAX_NESTED, MAX_TEXTS, check_structure
from faasmoe.errors import RequestError


@pytest.mark.parametrize(
    "text",
    ['"', "\\", '\\"', '{"a":[1,2]}', "[" * 50_000, "," * 100_000, '","' * 50_000, '\\"' * 50_000, "\\\\" * 9],
)
def test_what_is_written_in_a_text_does_not_count(text: str) -> None:
    check_structure(json.dumps({"prompt": text, "more": [text]}).encode(), 1)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (["a"] * (MAX_TEXTS + 1), "strings"),
        ([[]] * (MAX_NESTED + 1), "lists and objects"),
        ([{}] * (MAX_NESTED + 1), "lists and objects"),
        ([1] * (LEAST_VALUES + 1), "values"),
    ],
)
def test_what_is_too_much_is_named(value: object, what: str) -> None:
    with pytest.raises(RequestError, match=what):
        check_structure(json.dumps(value).encode(), 1)


def test_a_model_may_take_more_values() -> None:
    body = json.dumps([1] * 100_000).encode()
    check_structure(body, 100_000)
    with pytest.raises(RequestError, match="100000 values; at most 99999"):
        check_structure(body, 99_999)
