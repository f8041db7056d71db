"""A chat as all APIs ask for it, and what the engine is asked for in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from faasmoe.api.bodies.grammars import checked
from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.chat.call_formats import DEFAULT, FORMATS, CallFormat, recognised_calls
from faasmoe.api.chat.call_grammars import GrammarWriter, with_answer
from faasmoe.api.chat.call_id import fitted
from faasmoe.api.chat.harmony import SIGNS
from faasmoe.api.chat.reply import HARMONY, ReplyFormat
from faasmoe.api.chat.thinking import ThinkingFormat, recognised_thinking
from faasmoe.errors import RequestError
from faasmoe.protocol.request import SamplingParams, ThinkingBudget

_SWITCHES = ("enable_thinking", "thinking")  # variables of templates that turn reasoning on and off
_EFFORT = "reasoning_effort"
_ANALYSIS = ThinkingFormat(HARMONY, "<|channel|>analysis<|message|>", "<|end|>")
_BLANKS = ("\n", "\n\n", " ")  # before the reasoning: GLM-4.5 begins its responses with a line break
_ENDING = 8  # tokens at the end of a prompt that may begin the reasoning


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A conversation with what it asks of the response. Raises `RequestError` for a choice of tools that cannot be."""

    messages: Sequence[Mapping[str, Any]]  # in the form of chat templates
    tools: Sequence[Mapping[str, Any]] = ()  # each with `type` and `function`, as in OpenAI's API
    choice: Literal["auto", "none", "required"] = "auto"
    named: str | None = None  # the tool to call, of those above
    parallel: bool = True  # several calls may be in one response
    options: Mapping[str, Any] = field(default_factory=dict)  # variables of the template
    thinking: bool | None = None  # None: as the template has it
    effort: str | None = None  # of reasoning
    budget: int | None = None  # the most tokens of reasoning
    grammar: str | None = None  # of the answer

    def __post_init__(self) -> None:
        names = [tool["function"]["name"] for tool in self.tools]
        if len(set(names)) < len(names):
            raise RequestError("tools: two tools have the same name", param="tools")
        if self.choice == "required" and not names:
            raise RequestError("tool_choice asks for a call, and tools has none to call", param="tool_choice")
        if self.named is not None and self.named not in names:
            raise RequestError("tool_choice names a tool that is not among tools", param="tool_choice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the engine is asked for, and how to read what it answers."""

    prompt: list[int]
    params: SamplingParams
    reply: ReplyFormat


def prepared(chat: Chat, prompts: PromptReader, params: SamplingParams) -> Prepared:
    """The prompt of a chat, with `params` as the chat changes them. Raises `RequestError`."""
    encoder = prompts.encoder
    calling = bool(chat.tools) and chat.choice != "none"
    form = recognised_calls(encoder.template)
    chat = replace(chat, messages=_with_fitting_ids(chat.messages, form.id_length))
    tools = chat.tools if calling else ()
    options = _options(chat, encoder.options)
    prompt = prompts.conversation(chat.messages, tools, options)
    harmony = all(sign in encoder.template for sign in SIGNS)
    if calling and not harmony and encoder.folds(chat.messages, tools, options):
        form = DEFAULT
    thinking = (
        None if harmony else recognised_thinking(encoder.template, lambda text: encoder.token(text) is not None)
    )
    ending = encoder.text(prompt[-_ENDING:]).rstrip()
    opened = thinking is not None and ending.endswith(thinking.begin)
    reply = ReplyFormat(
        thinking=HARMONY if harmony else thinking.name if thinking else "",
        opened=opened,
        calls=form.name if calling else "",
        types={tool["function"]["name"]: _types(tool["function"]) for tool in tools},
    )
    signs = [form.begin] if calling else []
    signs += [*SIGNS] if harmony else [thinking.end] if thinking else []
    params = replace(
        params,
        grammar=_grammar(chat, tools, form, thinking, opened, prompts),
        skip_special_tokens=not any(map(encoder.is_special, signs)),
        thinking=_budget(chat.budget, _ANALYSIS if harmony else thinking, opened, prompts),
    )
    return Prepared(prompt=prompt, params=params, reply=reply)


def _with_fitting_ids(messages: Sequence[Mapping[str, Any]], length: int) -> list[Mapping[str, Any]]:
    """The same messages with ids of calls that a template takes: some models' want nine letters and digits."""
    found: list[Mapping[str, Any]] = []
    for message in messages:
        changed = dict(message)
        if "tool_call_id" in changed:
            changed["tool_call_id"] = fitted(changed["tool_call_id"], length)
        if changed.get("tool_calls"):
            changed["tool_calls"] = [{**call, "id": fitted(call["id"], length)} for call in changed["tool_calls"]]
        found.append(changed)
    return found


def _options(chat: Chat, known: frozenset[str]) -> dict[str, Any]:
    """Variables for the template. Raises `RequestError` for one that the template does not have."""
    unknown = next((name for name in chat.options if name not in known), None)
    if unknown is not None:
        names = ", ".join(sorted(known)) or "none"
        raise RequestError(
            f"chat_template_kwargs: the model's chat template has no variable {unknown[:64]!r}; it has {names}",
            param="chat_template_kwargs",
        )
    found = dict(chat.options)
    thinking = chat.thinking
    if chat.effort is not None:
        if _EFFORT in known and chat.effort != "none":
            found.setdefault(_EFFORT, chat.effort)
        elif thinking is None:
            thinking = chat.effort != "none"
    if thinking is not None:
        found |= {name: thinking for name in _SWITCHES if name in known and name not in found}
    return found


def _types(function: Mapping[str, Any]) -> dict[str, str]:
    """Of each parameter the type, if it is one."""
    properties = (function.get("parameters") or {}).get("properties")
    if not isinstance(properties, dict):
        return {}
    kinds = {name: value.get("type") for name, value in properties.items() if isinstance(value, dict)}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, str)}


def _grammar(
    chat: Chat,
    tools: Sequence[Mapping[str, Any]],
    form: CallFormat,
    thinking: ThinkingFormat | None,
    opened: bool,
    prompts: PromptReader,
) -> str | None:
    """The grammar of the whole response; None if it may be any text."""
    encoder = prompts.encoder
    writer = GrammarWriter(lambda text: encoder.token(text) if encoder.is_special(text) else None)
    several = chat.parallel and chat.named is None
    calls: str | None = None
    answer: str | None = None
    forced = bool(tools) and (chat.choice == "required" or chat.named is not None)
    strict = bool(tools) and all(tool["function"].get("strict") for tool in tools) and not form.bare
    single = bool(tools) and not chat.parallel and not form.bare
    if forced:
        chosen = [tool for tool in tools if chat.named in (None, tool["function"]["name"])]
        calls = writer.calls(form, chosen, several=several)
    elif chat.grammar is not None:
        calls, answer = writer.calls(form, tools, several=several) if tools else None, chat.grammar
    elif strict or single:
        calls = writer.calls_within_text(form, tools, several=several)
    else:
        return None
    if form is FORMATS[HARMONY]:
        return checked(with_answer(_harmony(writer, calls, answer is not None), answer), "tools")
    if calls is None and thinking is None:
        return answer
    main = writer.response(thinking=thinking, opened=opened, calls=calls, answer=answer is not None)
    return checked(with_answer(main, answer), "tools" if calls else "response_format")


def _harmony(writer: GrammarWriter, calls: str | None, answer: bool) -> str:
    """A response in channels: reasoning first, if any, then calls or the answer."""
    analysis = replace(_ANALYSIS, end="<|end|><|start|>assistant")
    final = f"{writer.literal('<|channel|>final<|message|>')} @answer" if answer else None
    ways = " | ".join(filter(None, (calls, final)))
    return writer.response(thinking=analysis, opened=False, calls=ways, answer=False)


def _budget(
    tokens: int | None, thinking: ThinkingFormat | None, opened: bool, prompts: PromptReader
) -> ThinkingBudget | None:
    if tokens is None or thinking is None:
        return None
    begin, end = (prompts.encoder.plain(sign) for sign in (thinking.begin, thinking.end))
    blank = {ids[0] for text in _BLANKS if len(ids := prompts.encoder.plain(text)) == 1}
    return ThinkingBudget(
        begin=() if opened else tuple(begin), blank=tuple(sorted(blank)), end=tuple(end), tokens=tokens
    )
