from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest

from faasmoe.api.openai.responses import ResponseFields
from faasmoe.api.parsed_request import Bounds, EndpointName, ParsedRequest
from faasmoe.errors import RequestError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.text.prompts import PromptEncoder
from faasmoe.protocol.request import SamplingParams
from faasmoe.readers.parser import RequestParser
from tests.hostile import hostile_bodies
from tests.reading import Letters
from tests.tokenizers import TOOLS_QWEN, chatml

BOUNDS = Bounds("m", 256, 1024)
PARSER = RequestParser(Letters(), BOUNDS)
HOSTILE = hostile_bodies("m")


def kind_of(path: str) -> EndpointName:
    return "chat" if path.startswith("chat") else "completions"


@pytest.fixture(scope="module")
def demo() -> RequestParser:
    return RequestParser(PromptEncoder.saved(resolve(None).folder), Bounds("m", 4096, 1024))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_body_costs_much(name: str, demo: RequestParser) -> None:
    path, body = HOSTILE[name]
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            demo.parse(kind_of(path), body)
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert memory < 64 << 20  # characters of four bytes each; it was up to 5.6 GiB
    assert time.process_time() - began < 5  # traced, and beside other tests; it was up to 24 s, and takes 0.07
    assert len(str(caught.value)) < 3000


def test_validation_stops_at_the_first_error() -> None:
    body = {"model": "m", "messages": [{}] * 4000}
    began = time.process_time()
    with pytest.raises(RequestError, match=r"messages\.0\.role") as caught:
        PARSER.parse("chat", json.dumps(body).encode())
    assert caught.value.param == "messages"
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"model":"\xff"}', "not UTF-8"),
        (b"[1]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"[" * 10_000, "too deep"),
        (b'{"seed":' + b"1" * 5000 + b"}", "too long"),
        (b'{"' + b"x" * 5000 + b'":1,"model":"m","prompt":"p"}', "does not know"),
    ],
)
def test_what_is_no_body_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        PARSER.parse("completions", body)
    assert len(str(caught.value)) < 300


def test_all_that_a_body_asks_for_is_told() -> None:
    body = {"model": "m", "prompt": ["a", "bc"], "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    body |= {"service_tier": "flex", "seed": 3, "stop": "x"}
    asked = PARSER.parse("completions", json.dumps(body).encode())
    params = SamplingParams(16, seed=3, stop=("x",))
    assert asked == ParsedRequest(
        prompts=((97,), (98, 99)),
        params=params,
        choices=2,
        stream=True,
        priority=-1,
        own=ResponseFields(stream_usage="last", service_tier="flex"),
    )


def test_an_answer_without_a_limit_may_fill_the_context() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "abc"}]}
    asked = PARSER.parse("chat", json.dumps(body).encode())
    assert (asked.prompts, asked.limited, asked.params.max_tokens) == (((97, 98, 99),), False, 1021)


def test_choices_are_counted_before_prompts_are_encoded() -> None:
    with pytest.raises(RequestError, match="at most 128 answers"):
        RequestParser(None, BOUNDS).parse(
            "completions", json.dumps({"model": "m", "prompt": ["a"] * 129}).encode()
        )  # type: ignore[arg-type]


def test_texts_are_checked_as_ids_are() -> None:
    """A token that only tokenizer_config.json knows of has no embedding."""
    tokenizer = chatml()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    parser = RequestParser(PromptEncoder(tokenizer, control=True), Bounds("m", tokenizer.vocab_size, 1024))
    for kind, field, value in (
        ("completions", "prompt", "a[PAD]"),
        ("completions", "prompt", ["b", "a[PAD]"]),
        ("chat", "messages", [{"role": "user", "content": "a"}]),  # its template writes such tokens
    ):
        with pytest.raises(RequestError, match=rf"{field} has token '.*', which is \d+: ids are 0 to") as caught:
            parser.parse(kind, json.dumps({"model": "m", field: value}).encode())  # type: ignore[arg-type]
        assert caught.value.param == field


@pytest.mark.parametrize("model", ["x", "m" * 1024])
def test_another_model_is_not_found(model: str) -> None:
    with pytest.raises(RequestError, match="does not exist; this server has 'm'") as caught:
        PARSER.parse("completions", json.dumps({"model": model, "prompt": "p"}).encode())
    assert caught.value.code == "model_not_found"


CALL = '{"a": "\\ud800"}'
DEEP = '{"a": ' + "[" * 900 + "]" * 900 + "}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": "\ud800"}}}]},
         "half of a surrogate pair"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": json.loads(DEEP)}}]}, "too deep"),
    ],
)  # fmt: skip
def test_tools_that_nothing_can_encode_are_refused(fields: dict[str, Any], message: str) -> None:
    parser = RequestParser(PromptEncoder(chatml(TOOLS_QWEN)), BOUNDS)
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], **fields}
    with pytest.raises(RequestError, match=message):
        parser.parse("chat", json.dumps(body).encode())


def test_arguments_of_calls_may_be_any_text() -> None:
    parser = RequestParser(PromptEncoder(chatml(TOOLS_QWEN)), Bounds("m", 1000, 1024))
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": CALL}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": "b"}]
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}, *turns]}
    assert parser.parse("chat", json.dumps(body).encode()).prompts
