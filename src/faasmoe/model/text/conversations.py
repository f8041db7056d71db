"""How a conversation is put to a chat template so that the template leaves none of it out.

Many templates know no `developer`, a system message at the beginning only, no tools, or calls of tools in one form
only, and leave out without a word what they do not know. So a template is first asked to render words in place of
contents, calls and tools: those that are missing belong to what it would leave out. That hangs on the shape of a
conversation alone, and is remembered by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, product
from typing import Any, Literal

from faasmoe.errors import RequestError
from faasmoe.model.text import call_messages, folding

Message = Mapping[
    str, Any
]  # in the form of chat templates: role, content, and maybe name, tool_calls, tool_call_id ...
Tools = Sequence[Mapping[str, Any]]
_KEPT = 256  # shapes
_WORD = re.compile(r"(\\\")?qx(t|\d+)(?:[cd]\d+)?xq", re.IGNORECASE)
_READS_IDS = re.compile(r"""\.id\b|\[['"]id['"]\]""")
_BETWEEN = "\n\n"  # messages that become one


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a template renders."""

    messages: Sequence[Message]
    tools: Tools = ()
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # variables of the template, such as `enable_thinking`


Render = Callable[[Conversation], str]  # raises `RequestError` if the template refuses it


@dataclass(frozen=True, slots=True)
class _Shape:
    """The facts about a conversation on which it hangs what a template leaves out."""

    turns: tuple[tuple[str, int, bool], ...]  # role, number of calls, whether there is a content
    tools: bool
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to put a conversation."""

    fold: Literal["", "system", "user"] = ""  # tools and calls as text, tools in a message of this role
    roles: Literal["named", "plain", "joined"] = "plain"
    arguments: Literal["object", "text"] = "object"  # of calls
    empty: Literal["text", "none"] = "text"  # the content of a message that has calls alone
    calls: call_messages.Way = "given"


class Conversations:
    """Arranges conversations for one template. `render` is the template."""

    def __init__(self, template: str, render: Render) -> None:
        self._render = render
        self._knows_developers = "developer" in template
        self._reads_ids = bool(_READS_IDS.search(template))
        self._choice = lru_cache(_KEPT)(self._choose)

    def arranged(self, asked: Conversation) -> Conversation:
        """The conversation with all its contents, as the template takes them.

        Raises `RequestError` naming a message that the template leaves out in every way.
        """
        shape = _shape(asked)
        way, lost = self._choice(shape)
        if lost is not None:
            raise _left_out(lost, [role for role, _, _ in shape.turns])
        return self._put(asked, way)

    def folds(self, asked: Conversation) -> bool:
        """Whether tools and calls are put to the template as text, since it has no place for all of them."""
        return bool(self._choice(_shape(asked))[0].fold)

    def _ways(self, shape: _Shape) -> Iterator[_Way]:
        calls = any(count for _, count, _ in shape.turns)
        acts = calls or shape.tools or any(role == "tool" for role, _, _ in shape.turns)
        folds: list[Any] = ["", "system", "user"] if acts else [""]
        forms: list[Any] = list(product(("object", "text"), ("text", "none"))) if calls else [("object", "text")]
        for fold in folds:
            puts: Sequence[call_messages.Way] = ("given",) if fold else tuple(self._call_ways(shape))
            for put in puts:
                for form in forms[:1] if fold else forms:
                    for roles in self._role_ways([role for role, _, _ in shape.turns]):
                        yield _Way(fold, roles, form[0], form[1], put)

    def _call_ways(self, shape: _Shape) -> Iterator[call_messages.Way]:
        yield "given"
        if self._reads_ids and any(count for _, count, _ in shape.turns):
            yield "named"
        if any(count > 1 or (count and said) for _, count, said in shape.turns):
            yield "apart"

    def _role_ways(self, roles: Sequence[str]) -> Iterator[Literal["named", "plain", "joined"]]:
        """Roles as they are, developers as systems (as OpenAI does), and neighbouring systems as one."""
        if "developer" in roles and self._knows_developers:
            yield "named"
        yield "plain"
        systems = [role in ("system", "developer") for role in roles]
        if any(map(all, pairwise(systems))):
            yield "joined"

    def _put(self, asked: Conversation, way: _Way) -> Conversation:
        messages, tools = asked.messages, asked.tools
        if way.fold:
            messages, tools = folding.folded(messages, tools, way.fold), ()
        messages = call_messages.put(messages, way.calls)
        messages = [_formed(message, way) for message in messages]
        if way.roles != "named":
            messages = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
        if way.roles == "joined":
            messages = _systems_joined(messages)
        return Conversation(messages=messages, tools=tools, options=asked.options)

    def _choose(self, shape: _Shape) -> tuple[_Way, str | None]:
        """The best way, and the first word of what the template leaves out even so.

        If the template refuses all ways, that is the first, so that the template says why.
        """
        best: tuple[_Way, str | None] = (next(self._ways(shape)), None)
        probe, words = _probe(shape)
        least = len(words) + 1
        for way in self._ways(shape):
            lost = self._lost(self._put(probe, way), words)
            if lost is not None and len(lost) < least:
                best, least = (way, min(lost, key=words.index, default=None)), len(lost)
            if not least:
                break
        return best

    def _lost(self, put: Conversation, words: Sequence[str]) -> set[str] | None:
        """Which of `words` the template leaves out, or writes as a text within a text; None if it refuses."""
        try:
            rendered = self._render(put)
        except RequestError:
            return None
        found = {(match[0].lower() if not match[1] else "") for match in _WORD.finditer(rendered)}
        return {word for word in words if word not in found}


def _shape(asked: Conversation) -> _Shape:
    return _Shape(
        tuple((m["role"], len(m.get("tool_calls") or ()), bool(m["content"])) for m in asked.messages),
        bool(asked.tools),
        tuple(sorted((name, repr(value)) for name, value in asked.options.items())),
    )


def _probe(shape: _Shape) -> tuple[Conversation, list[str]]:
    """A conversation of this shape, of words of ours, and these words."""
    words: list[str] = []

    def word(name: str) -> str:
        words.append(f"qx{name}xq")
        return words[-1]

    messages: list[dict[str, Any]] = []
    ids: list[str] = []  # of calls that have no result yet
    for i, (role, count, said) in enumerate(shape.turns):
        message: dict[str, Any] = {"role": role, "content": f"here {word(str(i))} is" if said else ""}
        if count:
            ids = [f"abc{i % 1000:03}{k % 1000:03}" for k in range(count)]  # letters and digits, as Mistral's are
            message["tool_calls"] = [
                {
                    "type": "function",
                    "id": its,
                    "function": {"name": word(f"{i}c{k}"), "arguments": {"at": word(f"{i}d{k}")}},
                }
                for k, its in enumerate(ids)
            ]
        if role == "tool":
            message |= {"tool_call_id": ids.pop(0) if len(ids) > 1 else ids[0] if ids else "abcdefghi"}
            message["name"] = "called"
        messages.append(message)
    tools = []
    if shape.tools:
        parameters = {"type": "object", "properties": {"at": {"type": "string", "description": "where"}}}
        tools = [
            {"type": "function", "function": {"name": word("t"), "description": "d", "parameters": parameters}}
        ]
    options = {name: _literal(value) for name, value in shape.options}
    return Conversation(messages=messages, tools=tools, options=options), words


def _literal(written: str) -> Any:
    """A value of an option by its `repr`: a truth value, a whole number or a text."""
    if written in ("True", "False"):
        return written == "True"
    return int(written) if written.lstrip("-").isdigit() else written[1:-1]


def _formed(message: Message, way: _Way) -> Message:
    """A message with calls, in the form that a template takes."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    content = message["content"] or (None if way.empty == "none" else "")
    if way.arguments == "text":
        calls = [{**call, "function": folding.with_text(call["function"])} for call in calls]
    return {**message, "content": content, "tool_calls": calls}


def _systems_joined(messages: Sequence[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        if message["role"] == "system" and joined and joined[-1]["role"] == "system":
            joined[-1] = {"role": "system", "content": joined[-1]["content"] + _BETWEEN + message["content"]}
        else:
            joined.append(message)
    return joined


def _left_out(word: str, roles: Sequence[str]) -> RequestError:
    place = _WORD.fullmatch(word)
    if not place or place[2] == "t":
        return RequestError("tools: the model's chat template has no place for tools", param="tools")
    role, index = roles[int(place[2])], int(place[2])
    instead = ""
    if role in ("system", "developer"):
        instead = "; say it in the first message, if that is a system message, or in a user message"
    return RequestError(
        f"messages.{index}: the model's chat template leaves out this {role} message{instead}", param="messages"
    )
