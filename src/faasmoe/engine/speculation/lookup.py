"""Prompt lookup: guesses how a sequence goes on from where its last tokens have stood before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST = 3  # tokens that have to be alike: fewer often are by chance
_MOST = 8  # tokens that are compared: where more are alike is no better a place
_BITS = 21  # of a token id, so that `LEAST` of them are one number of 63 bits
_ABSENT = (1 << _BITS) - 1  # stands before the first token; no vocabulary is as large
_KEY = (1 << LEAST * _BITS) - 1


class PromptLookup:
    """The tokens of one sequence, and the place from which it seems to copy (Saxena, "Prompt Lookup Decoding", 2023).

    That is behind the longest run that is equal to the last tokens, the latest of several, in prompt or completion.
    As long as the sequence follows the guess, the place moves on with it, else it is searched for again. A search
    reads eight bytes a token. An index of all n-grams would spare that, and take far more memory and time to make.
    """

    def __init__(self, prompt: Sequence[int], limit: int) -> None:
        """`limit` is the most tokens that it comes to."""
        self._length = length = _MOST + len(prompt)
        tokens = np.full(length, _ABSENT, np.int64)
        tokens[_MOST:] = prompt
        self._keys = np.empty(_MOST + limit, np.int64)  # each of a token and the two before it
        keys = self._keys[:length]
        keys[:] = tokens
        for back in range(1, LEAST):
            keys[back:] |= tokens[:-back] << (back * _BITS)
        self._next = 0  # the place of the token that is expected; 0: none is
        self._expected: int | None = None

    def append(self, token: int) -> bool | None:
        """Add `token`. Returns whether it was expected; None if no token was."""
        right = None if self._expected is None else token == self._expected
        keys, length = self._keys, self._length
        keys[length] = (int(keys[length - 1]) << _BITS | token) & _KEY
        self._length += 1
        self._next = self._next + 1 if right else self._search()
        self._expected = int(keys[self._next]) & _ABSENT if self._next else None
        return right

    def guess(self, most: int) -> tuple[int, ...]:
        """The next `most` tokens, if they are copied; empty if the last tokens have not been there before.

        A place so near the end that fewer tokens follow is the beginning of a repetition, which is guessed to go on.
        """
        if not self._next or not most:
            return ()
        copied = (self._keys[self._next : min(self._length, self._next + most)] & _ABSENT).tolist()
        return tuple(copied[i % len(copied)] for i in range(most))

    def _search(self) -> int:
        """The place behind the longest run, then the latest, that is equal to the last tokens; 0 if there is none."""
        keys, last = self._keys, self._length - 1
        found = np.flatnonzero(keys[:last] == keys[last])  # where such a run ends
        if not len(found):
            return 0
        for back in range(1, _MOST - LEAST + 1):
            longer = found[keys[found - back] == keys[last - back]]
            if not len(longer):
                break
            found = longer
        return int(found[-1]) + 1
