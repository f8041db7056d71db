"""How a conversation is put to a chat template so that the template leaves none of its messages out.

Many templates know no `developer`, or a system message at the beginning only, and leave out without a word what they do
not know. So a template is first asked to render words in place of contents: those that are missing belong to messages
that it would leave out. That hangs on roles alone and is remembered by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from faasmoe.errors import RequestError

Render = Callable[[Sequence[dict[str, str]]], str]  # raises `RequestError` if the template refuses the messages
# of each message for the template: its role, and which ones are in it
Way = tuple[tuple[str, tuple[int, ...]], ...]

_KEPT = 256  # sequences of roles
_WORDS = re.compile(r"qx(\d+)xq", re.IGNORECASE)
_BETWEEN = "\n\n"  # messages that become one


class Conversations:
    """Arranges conversations for one template. `render` is the template."""

    def __init__(self, template: str, render: Render) -> None:
        self._render = render
        self._knows_developers = "developer" in template
        self._choice = lru_cache(_KEPT)(self._choose)

    def arranged(self, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """The messages with all their contents, as the template takes them.

        Raises `RequestError` naming a message that the template leaves out in every way.
        """
        roles = tuple(message["role"] for message in messages)
        number, lost = self._choice(roles)
        if lost is not None:
            raise _left_out(lost, roles[lost])
        way = list(self._ways(roles))[number]
        return [_joined(role, [messages[i] for i in its]) for role, its in way]

    def _ways(self, roles: Sequence[str]) -> Iterator[Way]:
        """The ways to try: roles as they are, developers as systems (as OpenAI does), neighbouring systems as one."""
        plain = ["system" if role == "developer" else role for role in roles]
        named = roles if self._knows_developers else plain
        yield from dict.fromkeys((_apart(named), _apart(plain), _systems_joined(plain)))

    def _choose(self, roles: tuple[str, ...]) -> tuple[int, int | None]:
        """The number of the best way, and the first message that the template leaves out even so.

        If the template refuses all ways, the number is that of the first, so that the template says why.
        """
        best: tuple[int, int | None] = (0, None)
        least = len(roles) + 1
        for number, way in enumerate(self._ways(roles)):
            lost = self._lost(way, len(roles))
            if lost is not None and len(lost) < least:
                best, least = (number, min(lost, default=None)), len(lost)
            if not least:
                break
        return best

    def _lost(self, way: Way, count: int) -> set[int] | None:
        """Which of `count` messages the template leaves out; None if it refuses them."""
        messages = [{"role": role, "content": _BETWEEN.join(f"here qx{i}xq is" for i in its)} for role, its in way]
        try:
            rendered = self._render(messages)
        except RequestError:
            return None
        return set(range(count)) - {int(number) for number in _WORDS.findall(rendered)}


def _joined(role: str, messages: Sequence[dict[str, str]]) -> dict[str, str]:
    """One message of one or several; a name is that of one."""
    content = _BETWEEN.join(message["content"] for message in messages)
    return {**(messages[0] if len(messages) == 1 else {}), "role": role, "content": content}


def _apart(roles: Sequence[str]) -> Way:
    return tuple((role, (i,)) for i, role in enumerate(roles))


def _systems_joined(roles: Sequence[str]) -> Way:
    way: list[tuple[str, tuple[int, ...]]] = []
    for system, group in groupby(range(len(roles)), lambda i: roles[i] == "system"):
        its = tuple(group)
        way += [("system", its)] if system else [(roles[i], (i,)) for i in its]
    return tuple(way)


def _left_out(index: int, role: str) -> RequestError:
    instead = ""
    if role in ("system", "developer"):
        instead = "; say it in the first message, if that is a system message, or in a user message"
    return RequestError(
        f"messages.{index}: the model's chat template leaves out this {role} message{instead}", param="messages"
    )
