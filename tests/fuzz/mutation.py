"""Changes to JSON texts that leave them JSON: most random bytes get no further than the parser."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

from faasmoe.api.openai.messages import Message, TextPart
from faasmoe.api.openai.schema import ChatBody, CompletionBody

NAMES = sorted(
    {name for kind in (CompletionBody, ChatBody, Message, TextPart) for name in kind.model_fields}
    | {"dtype", "shape", "data_offsets", "__metadata__", "a", ""}
)
_LEAVES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 127, 128, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0, 0.5, 1e308,
    float("inf"), float("nan"), "", "x", "a b", "\n", "\0", "\ud800", "\U0001f600", "é" * 50, "<|im_start|>", "</s>",
    "[PAD]", "user", "system", "text", "auto", "flex", "json_object", "F32", "BF16", "I64", "0", "00", "99999999999",
    [], {}, [[]], [{}], {"": {}},
)  # fmt: skip


def mutated(text: bytes, seed: int, longest: int) -> bytes | None:
    """Another JSON text of at most `longest` bytes, None if `text` is none that can be changed so."""
    choice = random.Random(seed)
    try:
        value = json.loads(text)
        for _ in range(choice.randint(1, 4)):
            value = _changed(value, choice)
        made = json.dumps(value).encode()
    except (ValueError, RecursionError):
        return None
    return made if len(made) <= longest else None


def _changed(value: Any, choice: random.Random) -> Any:
    """One change somewhere in it."""
    places: list[tuple[Any, Any]] = []
    _collect(value, places)
    if not places or choice.random() < 0.02:
        return copy.deepcopy(choice.choice(_LEAVES))
    holder, key = choice.choice(places)
    choice.choice(_CHANGES)(holder, key, choice)
    return value


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            _collect(value[key], places)


def _replace(holder: Any, key: Any, choice: random.Random) -> None:
    holder[key] = copy.deepcopy(choice.choice(_LEAVES))


def _wrap(holder: Any, key: Any, choice: random.Random) -> None:
    holder[key] = choice.choice(
        (lambda inner: [inner], lambda inner: {"type": inner}, lambda inner: [inner, inner])
    )(holder[key])


def _number(holder: Any, key: Any, choice: random.Random) -> None:
    if isinstance(holder[key], (int, float)):
        holder[key] = choice.choice(
            (holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 2, str(holder[key]))
        )


def _add(holder: Any, key: Any, choice: random.Random) -> None:
    if isinstance(holder, dict):
        holder[choice.choice(NAMES)] = copy.deepcopy(choice.choice((holder[key], *_LEAVES)))
    else:
        holder.insert(key, copy.deepcopy(choice.choice((holder[key], *_LEAVES))))


def _repeat(holder: Any, key: Any, choice: random.Random) -> None:
    if isinstance(holder[key], (list, str)):
        holder[key] = holder[key] * choice.choice((2, 3, 20))


def _remove(holder: Any, key: Any, _: random.Random) -> None:
    del holder[key]


_CHANGES: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    _replace, _replace, _replace, _wrap, _number, _number, _add, _add, _repeat, _remove
)  # fmt: skip
