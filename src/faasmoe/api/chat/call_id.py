"""Ids of calls, by which results are sent back."""

from __future__ import annotations

import hashlib
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def call_id(length: int = 0) -> str:
    """A new id of a call; with a `length` of letters and digits alone."""
    if length:
        return "".join(secrets.choice(_ALPHABET) for _ in range(length))
    return f"call_{secrets.token_hex(12)}"


def fitted(given: str, length: int) -> str:
    """An id that a template takes in place of `given`, the same each time; `length` 0 takes any."""
    if not length or (len(given) == length and given.isascii() and given.isalnum()):
        return given
    digest = hashlib.sha256(given.encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:length])
