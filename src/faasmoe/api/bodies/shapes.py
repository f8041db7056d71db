"""Discriminators for fields with values of several shapes, so that an error is about the value's own shape alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator, Discriminator

TEXT, LIST, OBJECT, TEXTS, IDS, ID_LISTS = "(text)", "(list)", "(object)", "(texts)", "(ids)", "(lists of ids)"
NO_SHAPE = "no_shape"  # pydantic's name of the error for a value of none of a field's shapes

NO_CHARACTER = "half of a surrogate pair is no character"  # JSON can escape them, UTF-8 has no such thing


def read_as_text(unread: Mapping[str, str]) -> BeforeValidator:
    """Refuses objects of the types `unread`, each with what it is called in the plural."""

    def checked(value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind in unread:
            raise ValueError(
                f"{unread[kind]} are not read: every model is served as text, also one that can see or hear"
            )
        return value

    return BeforeValidator(checked)


def is_shape(part: str) -> bool:
    """Whether a part of an error's path is the name of a shape, which pydantic adds to it."""
    return part[:1] == "(" and part[-1:] == ")"


def shape_of(kind: str) -> str:
    """The shape of objects whose field `type` is `kind`."""
    return f"({kind})"


def by_type(*kinds: str) -> Discriminator:
    """The discriminator of a field that takes objects of several kinds, told by their field `type`."""
    known = {kind: shape_of(kind) for kind in kinds}

    def shape(value: Any) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else None
        return known.get(kind) if isinstance(kind, str) else None

    return Discriminator(shape, NO_SHAPE, f"an object whose type is one of {', '.join(kinds)}")


def text_or_list(described: str) -> Discriminator:
    """The discriminator of a field that takes a text or a list; `described` is for errors."""
    return Discriminator(_text_or_list, NO_SHAPE, described)


def text_or_object(described: str) -> Discriminator:
    """The discriminator of a field that takes a text or an object; `described` is for errors."""
    return Discriminator(_text_or_object, NO_SHAPE, described)


def prompt_shape(described: str) -> Discriminator:
    """The discriminator of a completion's prompt; `described` is for errors."""
    return Discriminator(_prompt, NO_SHAPE, described)


def _text_or_list(value: Any) -> str | None:
    if isinstance(value, str):
        return TEXT
    return LIST if isinstance(value, list) else None


def _text_or_object(value: Any) -> str | None:
    if isinstance(value, str):
        return TEXT
    return OBJECT if isinstance(value, dict) else None


def _prompt(value: Any) -> str | None:
    """The first item of a list decides its shape."""
    if isinstance(value, str):
        return TEXT
    if not isinstance(value, list):
        return None
    if not value or isinstance(value[0], str):
        return TEXTS
    return ID_LISTS if isinstance(value[0], list) else IDS
