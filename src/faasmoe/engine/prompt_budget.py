"""How many tokens of prompts a step takes beside decodes: measured, since it depends on the model and the machine."""

from __future__ import annotations

_LEAST = 64  # tokens that touch 59 of 60 experts: a step of fewer reads as much of the model, so is hardly shorter
FIRST = 128  # before any step was measured
_DAMPING = 0.5  # power of what a step asks for: times of single steps differ
_MOST_CHANGE = 4.0  # as a factor, that a step may ask for: one that asks for more was interrupted


class PromptBudget:
    """The most prompt tokens with which a step with decodes takes a target of seconds: the gap between their tokens.

    The chunk size of chunked prefills (Agrawal et al., "Sarathi-Serve", OSDI 2024), which there is a constant from a
    profile. A step takes some time, and more for each token of a prompt. So if a step with p such tokens took s, the
    right budget is p * target / s, or farther away from p. Each step moves the budget towards that number, half of the
    way as a factor, and so never past the right one. The budget is at least `_LEAST`, so that prompts get on whatever
    the target is, and at most what a step takes.
    """

    def __init__(self, target: float, most: int) -> None:
        """`target` seconds of a step, above 0; `most` tokens."""
        self._target = target
        self._least, self._most = min(_LEAST, most), most
        self._tokens = float(min(FIRST, most))

    @property
    def tokens(self) -> int:
        """The budget of the next step in which a sequence decodes."""
        return int(self._tokens)

    def note(self, prompt_tokens: int, seconds: float, *, beside_decodes: bool) -> None:
        """A step with `prompt_tokens`, at least one, took `seconds`, which are above 0.

        A step that was too long lowers the budget, with decodes or without. A shorter one raises it if it had decodes.
        """
        asked = prompt_tokens * self._target / seconds
        too_long = seconds > self._target
        if asked < self._tokens if too_long else beside_decodes and asked > self._tokens:
            change = min(max(asked / self._tokens, 1 / _MOST_CHANGE), _MOST_CHANGE)
            self._tokens = min(max(self._tokens * change**_DAMPING, self._least), self._most)
