"""Token ids to text: whole characters, and no text that may turn out to begin a stop string."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Protocol

_MOST_UNCERTAIN = 8  # tokens that are decoded once more with each that follows; a character has four bytes at most
_LONGEST_CHARACTER = 4  # bytes
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoders give for the first bytes of a character


class Decoder(Protocol):
    """The part of a tokenizer that is needed here."""

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = ...) -> str:
        """Text of `token_ids`."""

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that `token` stands for, which may begin or end within a character."""


class Detokenizer:
    """Turns one sequence's tokens into text as it becomes certain.

    Text is held back while its last bytes are no whole character, and while its end may be the beginning of
    a stop string. `context` is the end of the prompt: many tokenizers drop the space before the first word that
    they decode, so the first token must not be decoded without what stands before it.
    """

    def __init__(
        self,
        tokenizer: Decoder,
        stops: Sequence[str] = (),
        context: Sequence[int] = (),
        *,
        skip_special_tokens: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._stops = tuple(stops)
        self._tokens = list(context)
        self._start = 0  # of the window that is decoded; earlier tokens only give context
        self._read = len(context)  # tokens whose text has been taken
        self._before: str | None = None  # text of the window's tokens that have been taken
        self._held = ""
        self.length = 0  # characters that have become certain, whether released, held back or cut off
        self.stop: str | None = None  # the stop string that was found; nothing follows it

    @property
    def stopped(self) -> bool:
        """True once a stop string was found."""
        return self.stop is not None

    def push(self, token: int) -> str:
        """Text that has become certain with `token`."""
        self._tokens.append(token)
        before, end = self._taken(), len(self._tokens)
        many = end - self._read >= _MOST_UNCERTAIN
        now = self._decode(self._tokens[self._start :])
        if now.endswith(_UNFINISHED) and not self._tokenizer.token_bytes(token):
            # a special token within a character
            del self._tokens[-1]
            return ""
        if many and now == before:  # they stand for no text: what follows reads the same without them
            del self._tokens[self._read :]
            return ""
        if many and now.endswith(_UNFINISHED):  # all but the last bytes cannot become a character any more
            end -= self._beginning()
            now = self._decode(self._tokens[self._start : end])
        elif now.endswith(_UNFINISHED):
            return ""
        if len(now) <= len(before):
            return ""
        self._start, self._read, self._before = self._read, end, None
        self.length += len(now) - len(before)
        return self._release(self._held + now[len(before) :])

    def flush(self) -> str:
        """The text that was held back. Call it after the last token."""
        rest = self._held + self._decode(self._tokens[self._start :])[len(self._taken()) :]
        released = "" if self.stopped else self._release(rest)
        held, self._held = self._held, ""
        return released if self.stopped else released + held

    def _beginning(self) -> int:
        """The number of last tokens that may be the beginning of a character."""
        decoder = getincrementaldecoder("utf-8")("replace")
        last = [self._tokenizer.token_bytes(token) for token in self._tokens[-_LONGEST_CHARACTER:]]
        decoder.decode(b"".join(last))
        begun, count = len(decoder.getstate()[0]), 0
        while begun > 0:
            count += 1
            begun -= len(last[-count])
        return count

    def _taken(self) -> str:
        if self._before is None:
            self._before = self._decode(self._tokens[self._start : self._read])
        return self._before

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=self._skip)

    def _release(self, text: str) -> str:
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, self.stop = min(found)
            self._held = ""
            return text[:at]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that are the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
