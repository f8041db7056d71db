"""The place of one sequence in its grammar: which tokens may come next."""

from __future__ import annotations

import numpy as np
import torch
from llguidance import LLMatcher
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.errors import RequestError, brief

_WORD = 32  # tokens, each a bit
_NEVER = np.float32(-np.inf)


class GrammarMatcher:
    """Follows the tokens of one sequence through a compiled grammar. Raises `RequestError` where it cannot go on."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        """`matcher` belongs to this object from now on."""
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._bits = np.zeros(-(-vocabulary // _WORD), np.int32)

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, `[vocabulary]`; at least one."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise self._too_complex()
        flags = np.unpackbits(self._bits.view(np.uint8), count=self._vocabulary, bitorder="little")
        return flags.view(np.bool_)

    def masked(self, logits: Tensor) -> Tensor:
        """`logits` `[vocabulary]` float32, with negative infinity in the places of tokens that may not come next.

        numpy, since torch would share out so little between its threads, and wait for the slowest.
        """
        return torch.from_numpy(np.where(self.allowed(), logits.numpy(), _NEVER))

    def take(self, token: int) -> bool:
        """The sequence goes on with `token`, which is allowed. Returns whether nothing may follow."""
        if not self._matcher.consume_token(token):
            raise self._too_complex()
        return bool(self._matcher.is_stopped())

    def _too_complex(self) -> RequestError:
        # the library's message has no text of the sequence: `verbose_errors` is off
        cause = brief(ValueError(self._matcher.get_error()))
        return RequestError(f"the response cannot be held to its grammar or schema: {cause}")
