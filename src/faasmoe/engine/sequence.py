"""One request while it runs."""

from __future__ import annotations

from faasmoe.engine.speculation.speculator import Speculator
from faasmoe.model.state.sequence_state import SequenceState
from faasmoe.protocol.request import GenerationRequest


class Sequence:
    """Tokens of a request, prompt first, and how many of them the model has seen."""

    def __init__(self, request: GenerationRequest, *, speculates: bool = False) -> None:
        """`speculates` says whether drafts of its next tokens may be verified; its state can be truncated then."""
        self.id = request.id
        self.tenant = request.tenant
        self.weight = request.weight  # that its tenant has from now on
        self.priority = request.priority
        self.tokens = list(request.prompt)
        self.prompt_length = len(request.prompt)
        self.limit = self.prompt_length + request.params.max_tokens  # most tokens it can come to
        self.reusable = not request.needs_all_logits  # may start from the state of another sequence
        self.computed = 0  # tokens that are in `state`; falls to 0 if the sequence is preempted
        self.seen = 0  # tokens that the model has seen; those between `computed` and here it recomputes
        self.cached_tokens = 0  # tokens of the prompt that were reused and not computed
        self.state = SequenceState()  # of a running sequence the allocator's; empty while it waits
        self.speculator = Speculator(request.prompt, self.limit) if speculates else None
        self.arrival = 0  # its place among all sequences
        self.submitted = 0.0  # seconds of the scheduler's clock
        self.started: float | None = None  # when it first took part in a step

    @property
    def capacity(self) -> int:
        """Tokens for which memory is reserved."""
        return self.state.capacity

    @property
    def rank(self) -> tuple[int, int]:
        """The sort key among the tenant's sequences: higher priority first, then the order of arrival."""
        return -self.priority, self.arrival

    @property
    def pending(self) -> int:
        """Tokens that the model has not seen yet: the rest of the prompt, or the last token."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        """Tokens picked so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def queue_seconds(self) -> float:
        """Seconds from submission to the first step of the sequence; 0 until then."""
        return 0.0 if self.started is None else self.started - self.submitted

    def append(self, token: int) -> None:
        """Add a token that was picked."""
        self.tokens.append(token)
        if self.speculator:
            self.speculator.note(token)

    def draft(self, most: int, row_share: float) -> tuple[int, ...]:
        """Up to `most` guesses of the tokens behind the last, as `Speculator.draft`."""
        return self.speculator.draft(most, row_share) if self.speculator else ()

    def settle(self) -> None:
        """Forget what the model has seen of a draft beyond the tokens that were picked. The last is seen next."""
        self.computed = self.state.truncate(len(self.tokens) - 1)
        self.seen = max(self.seen, self.computed)

    def advance(self, count: int) -> None:
        """The model has seen `count` more tokens."""
        self.computed += count
        self.seen = max(self.seen, self.computed)
