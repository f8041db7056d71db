"""Where in a prompt a snapshot is taken of a state that cannot be truncated, so that a part of the prompt is reused."""

from __future__ import annotations

from faasmoe.engine.sequence import Sequence

LEAST_DISTANCE = 512  # tokens between snapshots: a step that ends at one runs fewer tokens than it might
_MOST = 8  # snapshots of a prompt, each of which takes memory


def distance(sequence: Sequence) -> int:
    """Tokens from one border to the next."""
    least = LEAST_DISTANCE
    return max(least, -(-sequence.prompt_length // _MOST // least) * least)


def before_border(sequence: Sequence) -> int:
    """Tokens that `sequence` may have in a step: up to the next border in its prompt, or all that it wants."""
    apart = distance(sequence)
    border = (sequence.computed // apart + 1) * apart
    return border - sequence.computed if border < sequence.prompt_length else sequence.pending


def at_border(sequence: Sequence) -> bool:
    """Whether it has seen the tokens before a border in its prompt, and no others."""
    return 0 < sequence.computed < sequence.prompt_length and sequence.computed % distance(sequence) == 0
