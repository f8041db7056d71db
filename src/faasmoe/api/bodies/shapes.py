"""Fields that take values of several shapes: which of them a value is, so that an error is about that one alone."""

from __future__ import annotations

from typing import Any

from pydantic import Discriminator

TEXT, LIST, TEXTS, IDS, ID_LISTS = "(text)", "(list)", "(texts)", "(ids)", "(lists of ids)"
SHAPES = frozenset((TEXT, LIST, TEXTS, IDS, ID_LISTS))  # pydantic adds them to the path of an error
NO_SHAPE = "no_shape"  # pydantic's name of the error for a value of none of a field's shapes

NO_CHARACTER = "half of a surrogate pair is no character"  # JSON can escape them, UTF-8 has no such thing


def text_or_list(described: str) -> Discriminator:
    """For a field that takes `described`."""
    return Discriminator(_text_or_list, NO_SHAPE, described)


def prompt_shape(described: str) -> Discriminator:
    """For a completion's prompt, which is `described`."""
    return Discriminator(_prompt, NO_SHAPE, described)


def _text_or_list(value: Any) -> str | None:
    if isinstance(value, str):
        return TEXT
    return LIST if isinstance(value, list) else None


def _prompt(value: Any) -> str | None:
    """The first item of a list says what the others have to be."""
    if isinstance(value, str):
        return TEXT
    if not isinstance(value, list):
        return None
    if not value or isinstance(value[0], str):
        return TEXTS
    return ID_LISTS if isinstance(value[0], list) else IDS
