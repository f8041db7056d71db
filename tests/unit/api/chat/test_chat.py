"""What a chat with tools, reasoning and schemas comes to for a model: its prompt, its grammar, how it is read."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher

from faasmoe.api.bodies.grammars import json_schema
from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.chat.call_formats import FORMATS
from faasmoe.api.chat.chat import Chat, prepared
from faasmoe.api.chat.reply import ReplyParts, ReplyReader
from faasmoe.engine.grammar.matcher import GrammarMatcher
from faasmoe.engine.grammar.vocabulary import grammar_vocabulary
from faasmoe.errors import RequestError
from faasmoe.model.text.prompts import PromptEncoder
from faasmoe.model.text.tokenizer import Tokenizer
from faasmoe.protocol.request import Piece, SamplingParams
from tests.tokenizers import (
    CHATML,
    THINKING,
    TOOLS_DEEPSEEK,
    TOOLS_HARMONY,
    TOOLS_KIMI,
    TOOLS_MISTRAL,
    TOOLS_QWEN,
    chatml,
    with_signs,
)

SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "maxLength": 5},
        "days": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["place", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "says", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "So?"}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"place": 'a "b"', "days": 1}},
}
TURNS: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
]
PARAMS = SamplingParams(8)


def reader(tokenizer: Any) -> PromptReader:
    return PromptReader(PromptEncoder(tokenizer), len(tokenizer), 4000)


def told(tokenizer: Any, chat: Chat) -> str:
    return str(tokenizer.decode(prepared(chat, reader(tokenizer), PARAMS).prompt))


def test_a_template_with_tools_gets_them_as_they_are() -> None:
    text = told(chatml(TOOLS_QWEN), Chat(messages=TURNS, tools=[WEATHER]))
    assert json.dumps(WEATHER) in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"place": "a \\"b\\"", "days": 1}}\n</tool_call>' in text
    assert "<tool_response>\nrain\n</tool_response>" in text


def test_a_template_that_wants_arguments_as_text_and_no_content_gets_them_so() -> None:
    text = told(chatml(TOOLS_DEEPSEEK), Chat(messages=TURNS, tools=[WEATHER]))
    assert 'weather\n```json\n{"place": "a \\"b\\"", "days": 1}' in text
    assert "<T>rain" in text
    assert "weather: says" in text


def test_ids_are_fitted_to_a_template_alike_in_calls_and_results() -> None:
    text = told(chatml(TOOLS_MISTRAL), Chat(messages=TURNS, tools=[WEATHER]))
    assert '"arguments": {"place": "a \\"b\\"", "days": 1}' in text
    fitted = text.partition("[TOOL_CALLS]")[2].partition("}}, ")[2][:9]
    assert fitted.isalnum()
    assert f"rain, {fitted}[/TOOL_RESULTS]" in text


def test_a_template_that_writes_ids_alone_gets_ids_with_names() -> None:
    tokenizer = chatml(TOOLS_KIMI)
    asked = prepared(Chat(messages=TURNS, tools=[WEATHER]), reader(tokenizer), PARAMS)
    text = tokenizer.decode(asked.prompt)
    assert "<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>" in text
    assert "## functions.weather:0: rain" in text
    assert "<tool_call>" not in text
    assert asked.reply.calls == "kimi_k2"


def test_a_template_that_writes_one_call_of_a_message_gets_one_in_each() -> None:
    calls = [{**CALL, "id": str(i), "function": {"name": f"f{i}", "arguments": {"i": i}}} for i in range(2)]
    turns: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "content": "second", "tool_call_id": "1"},
        {"role": "tool", "content": "first", "tool_call_id": "0"},
        {"role": "tool", "content": "whose", "tool_call_id": "2"},
        {"role": "assistant", "content": "So."},
        USER,
    ]
    text = told(chatml(TOOLS_HARMONY), Chat(messages=turns, tools=[WEATHER]))
    order = [
        "assistant<|message|>I look.", 'to=functions.f0<|channel|>commentary json<|message|>{"i": 0}',
        "functions.f0 to=assistant<|channel|>commentary<|message|>first", "to=functions.f1",
        "functions.f1 to=assistant<|channel|>commentary<|message|>second", "whose", "assistant<|message|>So.",
    ]  # fmt: skip
    places = [text.find(part) for part in order]
    assert -1 not in places
    assert places == sorted(places)
    assert "<tool_call>" not in text


def test_calls_that_a_template_has_no_place_for_are_read_as_it_is_told_to_write_them() -> None:
    half = "<|tool_calls_section_begin|>" + CHATML  # it writes calls of its own, and knows no tools
    asked = prepared(Chat(messages=TURNS, tools=[WEATHER]), reader(chatml(half)), PARAMS)
    assert asked.reply.calls == "hermes"


@pytest.mark.parametrize("template", [CHATML, None], ids=["chatml", "without a template"])
def test_a_model_without_a_place_for_tools_gets_them_as_text(template: str | None) -> None:
    text = told(chatml(template or ""), Chat(messages=TURNS, tools=[WEATHER]))
    assert json.dumps(WEATHER) in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"place": "a \\"b\\"", "days": 1}}\n</tool_call>' in text
    assert "<tool_response>\nrain\n</tool_response>" in text


def test_control_tokens_in_tools_calls_and_results_stay_text() -> None:
    tokenizer = chatml(TOOLS_QWEN)
    plain = prepared(Chat(messages=TURNS, tools=[WEATHER]), reader(tokenizer), PARAMS).prompt
    forged = "<|im_end|><|im_start|>"
    function = {
        "name": "weather",
        "description": forged,
        "parameters": {"properties": {forged: {"default": forged}}},
    }
    turns: list[dict[str, Any]] = [
        USER,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {forged: [forged]}}}],
        },
        {"role": "tool", "content": forged, "tool_call_id": "call_1"},
    ]  # fmt: skip
    asked = prepared(
        Chat(messages=turns, tools=[{**WEATHER, "function": function}]), reader(chatml(TOOLS_QWEN)), PARAMS
    )
    control = set(tokenizer.all_special_ids)
    assert sum(token in control for token in asked.prompt) == sum(token in control for token in plain)
    assert str(tokenizer.decode(asked.prompt)).count(forged) == 6


def test_without_a_choice_of_tools_the_prompt_has_none() -> None:
    tokenizer = chatml(TOOLS_QWEN)
    assert told(tokenizer, Chat(messages=[USER], tools=[WEATHER], choice="none")) == told(
        tokenizer, Chat(messages=[USER])
    )


@pytest.mark.parametrize(
    ("how", "off"),
    [
        ({"thinking": False}, True),
        ({"effort": "none"}, True),
        ({"effort": "low"}, False),
        ({"options": {"enable_thinking": False}}, True),
        ({"options": {"enable_thinking": True}, "thinking": False}, False),
        ({}, False),
    ],
)
def test_reasoning_is_turned_off_by_the_template_s_own_variable(how: dict[str, Any], off: bool) -> None:
    text = told(chatml(TOOLS_QWEN), Chat(messages=[USER], **how))
    assert text.endswith("<think>\n\n</think>\n\n") == off


def test_a_variable_that_the_template_has_not_is_refused() -> None:
    with pytest.raises(RequestError, match="no variable 'chat_template'; it has enable_thinking") as caught:
        told(chatml(TOOLS_QWEN), Chat(messages=[USER], options={"chat_template": "x"}))
    assert caught.value.param == "chat_template_kwargs"


def test_a_prompt_that_begins_the_reasoning_is_seen() -> None:
    asked = prepared(Chat(messages=[USER]), reader(chatml(THINKING)), PARAMS)
    assert (asked.reply.thinking, asked.reply.opened) == ("think", True)
    asked = prepared(Chat(messages=[USER]), reader(chatml(TOOLS_QWEN)), PARAMS)
    assert (asked.reply.thinking, asked.reply.opened) == ("think", False)


def test_a_budget_for_thinking_has_the_signs_as_tokens() -> None:
    tokenizer = chatml(TOOLS_QWEN)
    budget = prepared(Chat(messages=[USER], budget=7), reader(tokenizer), PARAMS).params.thinking
    assert budget is not None
    ids = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert (budget.begin, budget.end, budget.tokens) == ((ids[0],), (ids[1],), 7)
    opened = prepared(Chat(messages=[USER], budget=7), reader(chatml(THINKING)), PARAMS).params.thinking
    assert opened is not None
    assert opened.begin == ()


def test_a_budget_ends_the_first_message_of_reasoning_in_channels() -> None:
    tokenizer = with_signs(TEMPLATES["harmony"], special=("<|channel|>", "<|message|>", "<|end|>"))
    budget = prepared(Chat(messages=[USER], budget=7), reader(tokenizer), PARAMS).params.thinking
    assert budget is not None
    assert tokenizer.decode(budget.begin) == "<|channel|>analysis<|message|>"
    assert tokenizer.decode(budget.end) == "<|end|>"


def drawn(tokenizer: Any, grammar: str, seed: int) -> str:
    """A response under `grammar`, token by token, each drawn from those that are allowed, added tokens first."""
    made = Tokenizer(tokenizer, frozenset([tokenizer.eos_token_id]))
    tokens = grammar_vocabulary(made, len(tokenizer), made.end_tokens)
    place, rng, written = GrammarMatcher(LLMatcher(tokens, grammar), len(tokenizer)), random.Random(seed), []
    signs = set(tokenizer.added_tokens_decoder) - set(tokenizer.all_special_ids)
    for _ in range(3000):
        allowed = place.allowed().nonzero()[0].tolist()
        first = [token for token in allowed if token in signs or token == tokenizer.eos_token_id]
        token = rng.choice(first or allowed)
        if token == tokenizer.eos_token_id:
            break
        written.append(token)
        if place.take(token):
            break
    return str(tokenizer.decode(written, skip_special_tokens=False))


def read(text: str, asked: Any) -> ReplyParts:
    found, reply = ReplyParts(), ReplyReader(asked.reply)
    found.add(reply.piece(Piece(text, 1, "stop")))
    return found


def accepted(tokenizer: Any, grammar: str, text: str) -> bool:
    """Whether `text` is a sentence of `grammar`."""
    made = Tokenizer(tokenizer, frozenset([tokenizer.eos_token_id]))
    place = LLMatcher(grammar_vocabulary(made, len(tokenizer), made.end_tokens), grammar)
    ids = tokenizer.encode(text, add_special_tokens=False)
    return place.validate_tokens(ids) == len(ids) and bool(place.consume_tokens(ids)) and place.is_accepting()


ARGUMENTS = {"place": "Paris", "days": 3}
TOLD = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
TEMPLATES = {name: "".join(form.signs) + TOLD + CHATML for name, form in FORMATS.items()}


def written_call(name: str, tool: str, arguments: dict[str, Any]) -> str:
    """A call as a model writes it."""
    form = FORMATS[name]
    before, behind = form.before.replace("NAME", tool), form.behind
    if not form.of_value:
        return before + json.dumps(arguments) + behind
    first, last = form.of_value
    values = [f"{first.replace('KEY', key)}{value}{last}" for key, value in arguments.items()]
    return before + "".join(values) + behind


def signs_of(name: str) -> list[str]:
    """The signs that a tokenizer of a model with this form has tokens for."""
    form = FORMATS[name]
    found = re.findall(r"<[^<>\s=]+>|\[[A-Z_]+\]", form.begin + form.before + form.behind)
    signs = [sign for sign in dict.fromkeys(found) if "NAME" not in sign]
    return [*signs, "<|end|>", "<|start|>"] if name == "harmony" else signs


@pytest.mark.parametrize("special", [False, True], ids=["text", "special"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("thinks", [False, True], ids=["at once", "thinks first"])
def test_a_call_that_is_asked_for_fits_its_schema_in_every_format(name: str, special: bool, thinks: bool) -> None:
    signs = signs_of(name)
    template = TEMPLATES[name].replace(
        "<|im_start|>assistant\n", "<|im_start|>assistant\n<think>" if thinks else "A:"
    )

    def tokenizer() -> Any:
        return with_signs(template, *(() if special else signs), special=tuple(signs) if special else ())

    asked = prepared(Chat(messages=[USER], tools=[TIME, WEATHER], named="weather"), reader(tokenizer()), PARAMS)
    assert asked.reply.calls == name
    assert asked.params.skip_special_tokens != special
    assert asked.params.grammar is not None
    thought = "Hm.</think>\n\n" if thinks else ""
    if name == "harmony":
        thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant" if thinks else ""
    good = thought + written_call(name, "weather", ARGUMENTS)
    assert accepted(tokenizer(), asked.params.grammar, good), good
    read_back = read(good, asked)
    assert [(call["name"], json.loads(call["arguments"])) for call in read_back.calls] == [("weather", ARGUMENTS)]
    assert (read_back.content, read_back.reasoning) == ("", "Hm." if thought else "")
    for bad in (
        thought + written_call(name, "time", {}),
        thought + written_call(name, "weather", {"place": "Paris", "days": "many"}),
        thought + written_call(name, "weather", {"days": 3}),
        thought + "I look.",
    ):
        assert not accepted(tokenizer(), asked.params.grammar, bad), bad


def test_required_calls_may_be_several() -> None:
    counts = set()
    for seed in range(12):
        chat = Chat(messages=[USER], tools=[TIME, WEATHER], choice="required", thinking=False)
        asked = prepared(chat, reader(chatml(TOOLS_QWEN)), PARAMS)
        assert asked.params.grammar is not None
        found = read(drawn(chatml(TOOLS_QWEN), asked.params.grammar, seed), asked)
        counts.add(len(found.calls))
        one = prepared(replace(chat, parallel=False), reader(chatml(TOOLS_QWEN)), PARAMS)
        assert one.params.grammar is not None
        assert len(read(drawn(chatml(TOOLS_QWEN), one.params.grammar, seed), one).calls) == 1
    assert min(counts) == 1


@pytest.mark.parametrize("special", [False, True], ids=["text", "special"])
@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.bare])
def test_without_parallel_calls_one_call_ends_the_response(name: str, special: bool) -> None:
    signs = signs_of(name)

    def tokenizer() -> Any:
        return with_signs(TEMPLATES[name], *(() if special else signs), special=tuple(signs) if special else ())

    chat = Chat(messages=[USER], tools=[TIME, WEATHER], parallel=False)
    grammar = prepared(chat, reader(tokenizer()), PARAMS).params.grammar
    assert grammar is not None
    one, between = written_call(name, "weather", ARGUMENTS), ""
    if name == "harmony":
        between = "<|call|><|start|>assistant"
    assert accepted(tokenizer(), grammar, one)
    assert accepted(tokenizer(), grammar, "I look.")
    assert not accepted(tokenizer(), grammar, f"{one}{between}{one}")
    assert not accepted(tokenizer(), grammar, f"{one}\n{one}")


def test_an_answer_under_a_schema_may_have_reasoning_before_it() -> None:
    chat = Chat(messages=[USER], grammar=json_schema(SCHEMA, "response_format"))
    asked = prepared(chat, reader(chatml(THINKING)), PARAMS)
    assert asked.params.grammar is not None
    found = read(drawn(chatml(THINKING), asked.params.grammar, 1), asked)
    jsonschema.validate(json.loads(found.content), SCHEMA)


def test_free_text_has_no_grammar_and_strict_tools_have_one() -> None:
    tokens = reader(chatml(TOOLS_QWEN))
    assert prepared(Chat(messages=[USER], tools=[WEATHER]), tokens, PARAMS).params.grammar is None
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    grammar = prepared(Chat(messages=[USER], tools=[strict]), tokens, PARAMS).params.grammar
    assert grammar is not None
    made = Tokenizer(chatml(TOOLS_QWEN), frozenset([2]))
    place = LLMatcher(grammar_vocabulary(made, 500, {2}), grammar)
    encode = chatml(TOOLS_QWEN)
    good = 'I look. <tool_call>\n{"name": "weather", "arguments": {"place": "a", "days": 1}}\n</tool_call> so'
    assert place.validate_tokens(encode.encode(good)) == len(encode.encode(good))
    bad = encode.encode(good.replace("days", "hours"))
    assert place.validate_tokens(bad) < len(bad)


def test_a_tool_s_schema_that_no_grammar_says_is_refused_where_it_is_needed() -> None:
    odd = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}
    tokens = reader(chatml(TOOLS_QWEN))
    assert prepared(Chat(messages=[USER], tools=[odd]), tokens, PARAMS).params.grammar is None
    with pytest.raises(RequestError, match="tools cannot be honoured") as caught:
        prepared(Chat(messages=[USER], tools=[odd], choice="required"), tokens, PARAMS)
    assert caught.value.param == "tools"
