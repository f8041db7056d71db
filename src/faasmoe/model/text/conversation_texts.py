"""The texts of a conversation that somebody has written: contents, calls, tools, and the names within them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from faasmoe.model.text.conversations import Conversation

_OURS = frozenset(("role", "type", "id", "tool_call_id"))  # of a message or call: no text of anybody
# words of JSON Schema that templates compare with
_KINDS = frozenset(("string", "number", "integer", "boolean", "array", "object", "null", "function"))


def texts_of(conversation: Conversation) -> list[tuple[str, str]]:
    """Each text with the role of its message; texts of tools have the role `tool`. `with_texts` has the same order."""
    found: list[tuple[str, str]] = []

    def take(role: str, text: str) -> str:
        found.append((role, text))
        return text

    _walked(conversation, take)
    return found


def with_texts(conversation: Conversation, texts: Sequence[str]) -> Conversation:
    """The same conversation with other texts in the places of those that `texts_of` gives."""
    left: Iterator[str] = iter(texts)
    return _walked(conversation, lambda _role, _text: next(left))


def _walked(conversation: Conversation, change: Callable[[str, str], str]) -> Conversation:
    messages = [
        {
            key: value if key in _OURS else _value(value, message["role"], change, calls=key == "tool_calls")
            for key, value in message.items()
        }
        for message in conversation.messages
    ]
    tools = [{key: _value(value, "tool", change) for key, value in tool.items()} for tool in conversation.tools]
    return Conversation(messages=messages, tools=tools, options=conversation.options)


def _value(value: Any, role: str, change: Callable[[str, str], str], *, calls: bool = False) -> Any:
    """`calls`: the value is a message's calls, in which names of fields and ids are ours."""
    if isinstance(value, str):
        return value if value in _KINDS else change(role, value)
    if isinstance(value, dict):
        if calls:
            return {
                k: v if k in _OURS else _value(v, role, change, calls=k == "function") for k, v in value.items()
            }
        return {
            (key if key in _FIELDS else change(role, key)): _value(item, role, change)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_value(item, role, change, calls=calls) for item in value]
    return value


# names of tools and of JSON Schema, by which templates look things up
_FIELDS = frozenset(
    (
        "name", "description", "parameters", "strict", "type", "properties", "required", "items", "enum", "default",
        "additionalProperties", "anyOf", "oneOf", "allOf", "$ref", "$defs", "format", "minimum", "maximum", "nullable",
        "title", "const", "pattern", "examples", "minItems", "maxItems", "minLength", "maxLength", "arguments",
        "return",
    )
)  # fmt: skip
