"""How models write calls of tools, by what stands in their chat templates.

The forms are those of the models' own templates; names are vLLM's for `--tool-call-parser` where it has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from faasmoe.api.chat import harmony, xml_calls

_JSON = r'\s*[\[,;]?\s*\{\s*"name"\s*:\s*"(?P<name>[^"\\<>]{1,256})"\s*,\s*"(?:arguments|parameters)"\s*:\s*'
Types = Mapping[str, Mapping[str, str]]  # of tools: of parameters: JSON Schema's names of types


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """One way to write calls: signs around calls whose arguments are JSON, or a `body` that a function reads."""

    name: str
    signs: tuple[str, ...]  # of a chat template that has this form: all of them
    begin: str  # before the first call, or each
    head: re.Pattern[str] = re.compile(_JSON)  # up to the arguments of a call
    tail: tuple[str, ...] = ("}",)  # behind the arguments; whitespace may stand between
    again: tuple[str, ...] = ()  # what begins another call, if not `begin`; `head` has it as well
    close: str = ""  # behind the last call
    bare: bool = False  # a response that begins with an object is a call, without `begin`
    body: Callable[[str, Types], list[tuple[str, str]] | None] | None = None  # of the text up to `close`
    # for grammars: what stands before and behind the arguments of one call, NAME for the tool's name
    before: str
    behind: str = ""
    # the same for each value of a call that is no JSON, KEY for the parameter's name
    of_value: tuple[str, str] | None = None
    id_length: int = 0  # of ids that the template takes; 0: any


FORMATS = {
    each.name: each
    for each in (
        CallFormat(
            name="harmony",  # `chat.harmony` parses it
            signs=harmony.SIGNS,
            begin="<|channel|>",
            before="<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>",
        ),
        CallFormat(
            name="mistral_args",
            signs=("[TOOL_CALLS]", "[ARGS]"),
            begin="[TOOL_CALLS]",
            head=re.compile(r"\s*(?P<name>[\w.-]{1,256})(?:\[CALL_ID\]\w*)?\[ARGS\]\s*"),
            tail=(),
            before="[TOOL_CALLS]NAME[ARGS]",
            id_length=9,
        ),
        CallFormat(
            name="mistral",
            signs=("[TOOL_CALLS]",),
            begin="[TOOL_CALLS]",
            again=(",",),
            close="]",
            before='[TOOL_CALLS][{"name": "NAME", "arguments": ',
            behind="}]",
            id_length=9,
        ),
        CallFormat(
            name="deepseek_v3",
            signs=("<｜tool▁calls▁begin｜>", "```json"),  # noqa: RUF001
            begin="<｜tool▁calls▁begin｜>",  # noqa: RUF001
            head=re.compile(r"\s*<｜tool▁call▁begin｜>function<｜tool▁sep｜>(?P<name>[^<\n]{1,256})\n```json\n"),  # noqa: RUF001
            tail=("```", "<｜tool▁call▁end｜>"),  # noqa: RUF001
            again=("<｜tool▁call▁begin｜>",),  # noqa: RUF001
            close="<｜tool▁calls▁end｜>",  # noqa: RUF001
            before="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n",  # noqa: RUF001
            behind="\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",  # noqa: RUF001
        ),
        CallFormat(
            name="deepseek_v31",
            signs=("<｜tool▁calls▁begin｜>",),  # noqa: RUF001
            begin="<｜tool▁calls▁begin｜>",  # noqa: RUF001
            head=re.compile(r"\s*<｜tool▁call▁begin｜>(?P<name>[^<\n]{1,256})<｜tool▁sep｜>\s*"),  # noqa: RUF001
            tail=("<｜tool▁call▁end｜>",),  # noqa: RUF001
            again=("<｜tool▁call▁begin｜>",),  # noqa: RUF001
            close="<｜tool▁calls▁end｜>",  # noqa: RUF001
            before="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>",  # noqa: RUF001
            behind="<｜tool▁call▁end｜><｜tool▁calls▁end｜>",  # noqa: RUF001
        ),
        CallFormat(
            name="kimi_k2",
            signs=("<|tool_calls_section_begin|>",),
            begin="<|tool_calls_section_begin|>",
            head=re.compile(
                r"\s*<\|tool_call_begin\|>\s*(?:functions\.)?(?P<name>[\w.-]{1,256})(?::\d+)?\s*"
                r"<\|tool_call_argument_begin\|>\s*"
            ),
            tail=("<|tool_call_end|>",),
            again=("<|tool_call_begin|>",),
            close="<|tool_calls_section_end|>",
            before="<|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>",
            behind="<|tool_call_end|><|tool_calls_section_end|>",
        ),
        CallFormat(
            name="minimax_m2",
            signs=("<minimax:tool_call>",),
            begin="<minimax:tool_call>",
            close="</minimax:tool_call>",
            body=xml_calls.minimax,
            before='<minimax:tool_call>\n<invoke name="NAME">\n',
            of_value=('<parameter name="KEY">', "</parameter>\n"),
            behind="</invoke>\n</minimax:tool_call>",
        ),
        CallFormat(
            name="qwen3_coder",
            signs=("<tool_call>", "<function="),
            begin="<tool_call>",
            close="</tool_call>",
            body=xml_calls.qwen,
            before="<tool_call>\n<function=NAME>\n",
            of_value=("<parameter=KEY>\n", "\n</parameter>\n"),
            behind="</function>\n</tool_call>",
        ),
        CallFormat(
            name="glm45",
            signs=("<tool_call>", "<arg_key>"),
            begin="<tool_call>",
            close="</tool_call>",
            body=xml_calls.glm,
            before="<tool_call>NAME\n",
            of_value=("<arg_key>KEY</arg_key>\n<arg_value>", "</arg_value>\n"),
            behind="</tool_call>",
        ),
        CallFormat(
            name="granite",
            signs=("<|tool_call|>",),
            begin="<|tool_call|>",
            again=(",",),
            close="]",
            before='<|tool_call|>[{"name": "NAME", "arguments": ',
            behind="}]",
        ),
        CallFormat(
            name="llama3_json",
            signs=("<|python_tag|>",),
            begin="<|python_tag|>",
            again=(";",),
            bare=True,
            before='{"name": "NAME", "parameters": ',
            behind="}",
        ),
        CallFormat(
            name="hermes",
            signs=("<tool_call>",),
            begin="<tool_call>",
            tail=("}", "</tool_call>"),
            before='<tool_call>\n{"name": "NAME", "arguments": ',
            behind="}\n</tool_call>",
        ),
    )
}  # fmt: skip
DEFAULT = FORMATS["hermes"]  # of models whose template has no calls: `model.text.folding` tells them of it


def recognised_calls(template: str) -> CallFormat:
    """The format that a chat template writes calls in; the first whose signs it has."""
    return next((each for each in FORMATS.values() if all(sign in template for sign in each.signs)), DEFAULT)
