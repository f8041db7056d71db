"""Requests with a grammar, in an engine that runs others beside them."""

from __future__ import annotations

import json
import re
import threading

import pytest
from llguidance import LLMatcher

from faasmoe.engine.engine import Engine
from faasmoe.engine.grammar.compiler import GrammarCompiler
from faasmoe.errors import RequestError
from faasmoe.orchestrator.runtime import Runtime
from tests.unit.engine.conftest import drain, greedy, submit

DIGITS = str(LLMatcher.grammar_from_regex(r"[0-9]{3}-[a-f]{2}"))
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "size": {"enum": ["big", "small"]}},
    "required": ["name", "size"],
    "additionalProperties": False,
}
OBJECT = str(LLMatcher.grammar_from_json_schema(SCHEMA, overrides={"whitespace_flexible": False}))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_response_is_a_sentence_of_its_grammar_and_ends_with_it(serving: Runtime, temperature: float) -> None:
    stream = submit(serving, "a", [5, 6, 7], max_tokens=60, temperature=temperature, seed=3, grammar=DIGITS)
    text, last = drain(stream)
    assert re.fullmatch(r"[0-9]{3}-[a-f]{2}", text)
    assert last.finish_reason == "stop"


def test_a_response_under_a_schema_parses(serving: Runtime) -> None:
    text, last = drain(submit(serving, "a", [5, 6], max_tokens=100, temperature=1.0, seed=1, grammar=OBJECT))
    value = json.loads(text)
    assert last.finish_reason == "stop"
    assert set(value) == {"name", "size"}
    assert value["size"] in ("big", "small")
    assert len(value["name"]) <= 6


def test_a_grammar_that_never_has_to_end_ends_where_the_model_says_or_at_max_tokens(serving: Runtime) -> None:
    letters = str(LLMatcher.grammar_from_regex(r"[xyz]*"))
    text, last = drain(submit(serving, "a", [1], max_tokens=20, grammar=letters, ignore_eos=True))
    assert set(text) <= set("xyz")
    assert (last.finish_reason == "length") == (last.tokens == 20)


def test_requests_beside_one_with_a_grammar_get_what_they_get_alone(serving: Runtime, tiny: tuple) -> None:
    prompts = [[5, 6, 7], list(range(40)), [99]]
    held = submit(serving, "held", [3, 4], max_tokens=40, grammar=OBJECT)
    streams = [submit(serving, str(i), p, max_tokens=12) for i, p in enumerate(prompts)]
    for prompt, stream in zip(prompts, streams, strict=True):
        assert drain(stream)[0] == serving.tokenizer.decode(greedy(tiny[1], prompt, 12))
    assert drain(held)[1].error is None


def test_choices_with_one_grammar_do_not_share_their_places(serving: Runtime) -> None:
    streams = [
        submit(serving, str(seed), [5], max_tokens=60, temperature=1.0, seed=seed, grammar=DIGITS)
        for seed in range(4)
    ]
    texts = [drain(stream)[0] for stream in streams]
    assert all(re.fullmatch(r"[0-9]{3}-[a-f]{2}", text) for text in texts)
    assert len(set(texts)) > 1


def test_speculation_obeys_a_grammar(engine_with, serving: Runtime) -> None:
    engine: Engine = engine_with(grammars=grammars_of(serving), speculation="ngram")
    prompt = list(b"123-ab 123-ab 123-ab 123-ab ")
    pattern = r"(123-ab ){4}"
    stream = submit(engine, "a", prompt, max_tokens=60, grammar=str(LLMatcher.grammar_from_regex(pattern)))
    assert drain(stream)[0] == "123-ab " * 4


def test_what_is_no_grammar_fails_its_request_alone(serving: Runtime) -> None:
    text, last = drain(submit(serving, "a", [1], grammar='start: "a" missing'))
    assert text == ""
    assert last.error is not None
    assert "cannot be compiled" in last.error
    assert drain(submit(serving, "b", [1], max_tokens=3))[1].error is None


def test_a_request_that_waits_for_its_grammar_can_be_cancelled(engine_with, serving: Runtime) -> None:
    entered, go = threading.Event(), threading.Event()

    class Slow(GrammarCompiler):
        def _compile(self, grammar: str) -> LLMatcher:
            entered.set()
            go.wait(60)
            return super()._compile(grammar)

    compiler = Slow(serving.tokenizer, serving.model.vocabulary, serving.tokenizer.end_tokens)
    engine: Engine = engine_with(grammars=compiler)
    stream = submit(engine, "a", [1], grammar=DIGITS)
    other = submit(engine, "b", [1], max_tokens=60, grammar=DIGITS)
    assert entered.wait(60)
    assert engine.load() == (0, 2)
    engine.cancel("a")
    assert drain(stream)[1].finish_reason == "cancelled"
    go.set()
    assert drain(other)[1].finish_reason == "stop"
    assert stream.empty()
    assert engine.load() == (0, 0)


def test_without_a_compiler_a_grammar_is_refused(engine_with) -> None:
    with pytest.raises(RequestError, match="compiles no grammars"):
        submit(engine_with(), "a", [1], grammar=DIGITS)


def grammars_of(serving: Runtime) -> GrammarCompiler:
    return GrammarCompiler(serving.tokenizer, serving.model.vocabulary, serving.tokenizer.end_tokens)
