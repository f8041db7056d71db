"""Discriminators for fields with values of several shapes, so that an error is about the value's own shape alone."""

from __future__ import annotations

from typing import Any

from pydantic import Discriminator

TEXT, LIST, TEXTS, IDS, ID_LISTS = "(text)", "(list)", "(texts)", "(ids)", "(lists of ids)"
SHAPES = frozenset((TEXT, LIST, TEXTS, IDS, ID_LISTS))  # pydantic adds them to the path of an error
NO_SHAPE = "no_shape"  # pydantic's name of the error for a value of none of a field's shapes

NO_CHARACTER = "half of a surrogate pair is no character"  # JSON can escape them, UTF-8 has no such thing


def text_or_list(described: str) -> Discriminator:
    """The discriminator of a field that takes a text or a list; `described` is for errors."""
    return Discriminator(_text_or_list, NO_SHAPE, described)


def prompt_shape(described: str) -> Discriminator:
    """The discriminator of a completion's prompt; `described` is for errors."""
    return Discriminator(_prompt, NO_SHAPE, described)


def _text_or_list(value: Any) -> str | None:
    if isinstance(value, str):
        return TEXT
    return LIST if isinstance(value, list) else None


def _prompt(value: Any) -> str | None:
    """The first item of a list decides its shape."""
    if isinstance(value, str):
        return TEXT
    if not isinstance(value, list):
        return None
    if not value or isinstance(value[0], str):
        return TEXTS
    return ID_LISTS if isinstance(value[0], list) else IDS
