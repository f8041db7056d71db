"""Outputs in the forms that models write, as their own templates show them, and in any pieces."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.api.chat.call_formats import FORMATS
from faasmoe.api.chat.reply import ReplyFormat, ReplyParts, ReplyReader
from faasmoe.protocol.request import Piece

TYPES = {"weather": {"place": "string", "days": "integer", "zip": "string"}, "time": {}}
ARGUMENTS = {"place": 'Paris "centre" </x> {', "days": 3}
WEATHER = json.dumps(ARGUMENTS)
XML = {"place": "Paris, 9e", "days": 3, "zip": "75009"}


def calls_of(*calls: tuple[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"id{i}",
            "name": name,
            "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
        }
        for i, (name, arguments) in enumerate(calls)
    ]


def read(form: ReplyFormat, pieces: list[str]) -> tuple[ReplyParts, ReplyReader]:
    ids = count()
    reply, found = ReplyReader(form, lambda: f"id{next(ids)}"), ReplyParts()
    for number, text in enumerate(pieces):
        last = "stop" if number == len(pieces) - 1 else None
        found.add(reply.piece(Piece(text, number + 1, last)))
    return found, reply


BOTH = calls_of(("weather", WEATHER), ("time", "{}"))
ONE = calls_of(("weather", WEATHER))
CASES: dict[str, tuple[ReplyFormat, str, ReplyParts]] = {
    "hermes": (
        ReplyFormat(calls="hermes", types=TYPES),
        f'I look.\n<tool_call>\n{{"name": "weather", "arguments": {WEATHER}}}\n</tool_call>\n'
        '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
        ReplyParts("I look.", "", BOTH),
    ),
    "hermes, arguments first": (
        ReplyFormat(calls="hermes"),
        '<tool_call>{"arguments": {"a": 1}, "name": "time"}</tool_call>',
        ReplyParts("", "", calls_of(("time", {"a": 1}))),
    ),
    "hermes, arguments as a text": (
        ReplyFormat(calls="hermes"),
        '<tool_call>{"name": "time", "arguments": "{\\"a\\": 1}"}</tool_call> done',
        ReplyParts("done", "", calls_of(("time", '{"a": 1}'))),
    ),
    "hermes without an end": (
        ReplyFormat(calls="hermes"),
        f'<tool_call>\n{{"name": "weather", "arguments": {WEATHER}',
        ReplyParts("", "", ONE),
    ),
    "no call": (
        ReplyFormat(calls="hermes"),
        "a <tool_call> is <b>text</b> </tool_call> here",
        ReplyParts("a <tool_call> is <b>text</b> </tool_call> here", "", []),
    ),
    "a name with a sign in it": (
        ReplyFormat(calls="hermes"),
        '<tool_call>{"name": "</tool_call>", "arguments": {}}</tool_call>',
        ReplyParts('<tool_call>{"name": "</tool_call>", "arguments": {}}</tool_call>', "", []),
    ),
    "a beginning of a call": (ReplyFormat(calls="hermes"), "a <tool_ca", ReplyParts("a <tool_ca", "", [])),
    "a call that breaks off": (
        ReplyFormat(calls="hermes"),
        'a <tool_call>{"name": "wea',
        ReplyParts('a <tool_call>{"name": "wea', "", []),
    ),
    "qwen3_coder": (
        ReplyFormat(calls="qwen3_coder", types=TYPES),
        "Well.\n\n<tool_call>\n<function=weather>\n<parameter=place>\nParis, 9e\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n<parameter=zip>\n75009\n</parameter>\n</function>\n</tool_call>",
        ReplyParts("Well.", "", calls_of(("weather", XML))),
    ),
    "glm45": (
        ReplyFormat(calls="glm45", types=TYPES, thinking="think"),
        "\n<think>I need it.</think>\n\n<tool_call>weather\n<arg_key>place</arg_key>\n"
        "<arg_value>Paris, 9e</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n<arg_key>zip</arg_key>\n<arg_value>75009</arg_value>\n"
        "</tool_call>\n<tool_call>time\n</tool_call>",
        ReplyParts("", "I need it.", calls_of(("weather", XML), ("time", {}))),
    ),
    "minimax_m2": (
        ReplyFormat(calls="minimax_m2", types=TYPES, thinking="think", opened=True),
        'Hm.\n</think>\n\n<minimax:tool_call>\n<invoke name="weather">\n'
        '<parameter name="place">Paris, 9e</parameter>\n'
        '<parameter name="days">3</parameter>\n<parameter name="zip">75009</parameter>\n</invoke>\n'
        '<invoke name="time">\n</invoke>\n</minimax:tool_call>',
        ReplyParts("", "Hm.", calls_of(("weather", XML), ("time", {}))),
    ),
    "mistral": (
        ReplyFormat(calls="mistral"),
        f'[TOOL_CALLS][{{"name": "weather", "arguments": {WEATHER}}}, {{"name": "time", "arguments": {{}}}}]',
        ReplyParts("", "", BOTH),
    ),
    "mistral, with ids": (
        ReplyFormat(calls="mistral"),
        f'[TOOL_CALLS] [{{"name": "weather", "arguments": {WEATHER}, "id": "a}}]b"}},'
        ' {"name": "time", "arguments": {} , "id": {"a": [1]}}] So.',
        ReplyParts("So.", "", BOTH),
    ),
    "mistral, fields in another order": (
        ReplyFormat(calls="mistral"),
        f'[TOOL_CALLS][{{"id": "a", "arguments": {WEATHER}, "name": "weather"}}, {{"name": "time"}}]',
        ReplyParts("", "", BOTH),
    ),
    "mistral, no call": (
        ReplyFormat(calls="mistral"),
        'Look: [TOOL_CALLS][{"a": 1}, 2] and [TOOL_CALLS][{"name": "time", "arguments": {}}]',
        ReplyParts('Look: [TOOL_CALLS][{"a": 1}, 2] and', "", calls_of(("time", "{}"))),
    ),
    "hermes, a long call in another order": (
        ReplyFormat(calls="hermes"),
        '<tool_call>{"arguments": {"a": "' + "b" * 4100 + '"}, "name": "time"}</tool_call>'
        '<tool_call>{"name": "time", "arguments": {}}</tool_call>',
        ReplyParts(
            '<tool_call>{"arguments": {"a": "' + "b" * 4100 + '"}, "name": "time"}</tool_call>',
            "",
            calls_of(("time", "{}")),
        ),
    ),
    "llama3_json with its type": (
        ReplyFormat(calls="llama3_json"),
        f'{{"type": "function", "name": "weather", "parameters": {WEATHER}}}; {{"name": "time", "parameters": {{}}}}',
        ReplyParts("", "", BOTH),
    ),
    "mistral_args": (
        ReplyFormat(calls="mistral_args", thinking="mistral"),
        f"[THINK]Hm.[/THINK]I look.[TOOL_CALLS]weather[ARGS]{WEATHER}[TOOL_CALLS]time[ARGS]{{}}",
        ReplyParts("I look.", "Hm.", BOTH),
    ),
    "llama3_json": (
        ReplyFormat(calls="llama3_json"),
        f'{{"name": "weather", "parameters": {WEATHER}}}; {{"name": "time", "parameters": {{}}}}',
        ReplyParts("", "", BOTH),
    ),
    "llama3_json with its sign": (
        ReplyFormat(calls="llama3_json"),
        f'I look. <|python_tag|>{{"name": "weather", "parameters": {WEATHER}}}',
        ReplyParts("I look.", "", ONE),
    ),
    "llama3_json, an answer in JSON": (
        ReplyFormat(calls="llama3_json"), '{"answer": [1, 2]}', ReplyParts('{"answer": [1, 2]}', "", [])
    ),
    "deepseek_v3": (
        ReplyFormat(calls="deepseek_v3"),
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"  # noqa: RUF001
        f"{WEATHER}\n```<｜tool▁call▁end｜>"  # noqa: RUF001
        "\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",  # noqa: RUF001
        ReplyParts("", "", BOTH),
    ),
    "deepseek_v31": (
        ReplyFormat(calls="deepseek_v31", thinking="think", opened=True),
        "Hm. <b></think>Ok.<｜tool▁calls▁begin｜>"  # noqa: RUF001
        f"<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{WEATHER}<｜tool▁call▁end｜>"  # noqa: RUF001
        "<｜tool▁call▁begin｜>time<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",  # noqa: RUF001
        ReplyParts("Ok.", "Hm. <b>", BOTH),
    ),
    "kimi_k2": (
        ReplyFormat(calls="kimi_k2"),
        "I look.<|tool_calls_section_begin|>"
        f"<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{WEATHER}"
        "<|tool_call_end|><|tool_call_begin|>functions.time:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        ReplyParts("I look.", "", BOTH),
    ),
    "granite": (
        ReplyFormat(calls="granite"),
        f'<|tool_call|>[{{"name": "weather", "arguments": {WEATHER}}}, {{"name": "time", "arguments": {{}}}}]',
        ReplyParts("", "", BOTH),
    ),
    "harmony": (
        ReplyFormat(calls="harmony", thinking="harmony"),
        "<|channel|>analysis<|message|>Hm. <b><|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
        f"{WEATHER}<|call|><|start|>assistant to=functions.time<|channel|>commentary json<|message|>{{}}",
        ReplyParts("I look.", "Hm. <b>", BOTH),
    ),
    "harmony, an answer": (
        ReplyFormat(thinking="harmony"),
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
        ReplyParts("Yes.", "Hm.", []),
    ),
    "thinking": (
        ReplyFormat(thinking="think"),
        "\n<think>\nHm.\n\nYes.\n</think>\n\nIt is.\n",
        ReplyParts("It is.\n", "Hm.\n\nYes.", []),
    ),
    "thinking that does not end": (
        ReplyFormat(thinking="think"), "<think>Hm. </thin", ReplyParts("", "Hm. </thin", [])
    ),
    "no thinking": (ReplyFormat(thinking="think"), " <thing> </think>", ReplyParts(" <thing> </think>", "", [])),
    "nothing": (ReplyFormat(), " <think> <tool_call>\n", ReplyParts(" <think> <tool_call>\n", "", [])),
    "text with calls expected": (ReplyFormat(calls="hermes"), "Yes.\n\nNo. \n", ReplyParts("Yes.\n\nNo. \n", "", [])),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_response_is_told_apart(name: str) -> None:
    form, text, wanted = CASES[name]
    found, reply = read(form, [text])
    assert found == wanted
    assert reply.called == bool(wanted.calls)


def test_each_format_is_read() -> None:
    assert {form.calls for form, _, _ in CASES.values()} >= set(FORMATS)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(CASES)), cuts=st.lists(st.integers(0, 500), max_size=12))
def test_any_pieces_give_the_same(name: str, cuts: list[int]) -> None:
    form, text, wanted = CASES[name]
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert read(form, pieces)[0] == wanted


@pytest.mark.parametrize("name", CASES)
def test_single_characters_give_the_same(name: str) -> None:
    form, text, wanted = CASES[name]
    assert read(form, [*text, ""])[0] == wanted


_SIGNS = sorted(
    {sign for form in FORMATS.values() for sign in (form.begin, form.close, *form.tail, *form.again) if sign}
)


@settings(max_examples=400, deadline=None)
@given(
    calls=st.sampled_from(sorted(FORMATS)),
    parts=st.lists(
        st.sampled_from(
            [*_SIGNS, '{"name": "', '", "arguments": ', "{", "}", "<think>", "</think>", "a", " ", "\n", '"', "["]
        ),
        max_size=14,
    ),
    cut=st.integers(0, 80),
)
def test_hostile_text_is_read_in_any_pieces_alike(calls: str, parts: list[str], cut: int) -> None:
    form, text = ReplyFormat(calls=calls, thinking="harmony" if calls == "harmony" else "think"), "".join(parts)
    whole = read(form, [text])[0]
    assert read(form, [text[:cut], text[cut:]])[0] == whole
    assert read(form, [*text, ""])[0] == whole


def test_tokens_of_reasoning_are_counted() -> None:
    _, reply = read(ReplyFormat(thinking="think"), ["<think>", "a", "b", "</think>", "c", "d"])
    assert reply.reasoning_tokens == 4


@pytest.mark.parametrize(
    ("calls", "text"),
    [
        ("qwen3_coder", f"<tool_call>{'<function=a>' * 20_000}</tool_call>"),
        ("qwen3_coder", f"<tool_call><function=a>{'<parameter=a>' * 20_000}</function></tool_call>"),
        ("glm45", f"<tool_call>f{'<arg_key>a</arg_key><arg_value>' * 20_000}</tool_call>"),
        ("minimax_m2", "<minimax:tool_call>" + '<invoke name="a">' * 20_000 + "</minimax:tool_call>"),
    ],
)
def test_tags_that_nothing_closes_are_passed_in_one_go(calls: str, text: str) -> None:
    """What takes quadratic time comes to minutes here, in the process of all tenants."""
    found, _ = read(ReplyFormat(calls=calls), [text])
    assert all(call["arguments"] == "{}" for call in found.calls)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "1e999"),
        ('"\\ud800"', "\ud800"),
        ('["é"]', ["é"]),
        ("[" * 50_000, "[" * 50_000),
        ("[" * 20_000 + "]" * 20_000, "[" * 20_000 + "]" * 20_000),
    ],
)
def test_values_between_tags_come_to_json_that_can_be_sent(written: str, value: Any) -> None:
    form = ReplyFormat(calls="glm45", types={"f": {"a": "number"}})
    text = f"<tool_call>f<arg_key>a</arg_key><arg_value>{written}</arg_value></tool_call>"
    (call,) = read(form, [text])[0].calls
    assert msgspec.json.encode(call)
    assert json.loads(call["arguments"], parse_constant=pytest.fail) == {"a": value}


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ('{"arguments": {"a": "\\ud800 é"}, "name": "f"}', "f", '{"a": "\\ud800 \\u00e9"}'),
        ('{"arguments": {}, "name": "\\ud800"}', "?", "{}"),
        ('{"name": "f", "arguments": "\\ud800"}', "f", "?"),
    ],
)
def test_half_a_surrogate_pair_ends_no_stream(text: str, name: str, arguments: str) -> None:
    (call,) = read(ReplyFormat(calls="hermes"), [f"<tool_call>{text}</tool_call>"])[0].calls
    assert msgspec.json.encode(call)
    assert (call["name"], call["arguments"]) == (name, arguments)
