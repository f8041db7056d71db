from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.request_state import RequestState
from faasmoe.engine.step import ScheduledTokens
from faasmoe.model.state.sequence_state import SequenceState
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

END = 256
VOCABULARY = 257


class Bytes:
    """A tokenizer whose tokens are single bytes, and one that ends texts and shows nothing."""

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return bytes(i for i in token_ids if i != END).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return b"<end>" if token == END else bytes([token])


def logits_after(tokens: Sequence[int]) -> torch.Tensor:
    """What the model of these tests says: like any model's, it hangs on all tokens so far."""
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(hash(tuple(tokens))))


class SeenTokens(SequenceState):
    """A state that knows how many tokens it has."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def truncate(self, tokens: int) -> int:
        assert tokens <= self.tokens
        self.tokens = tokens
        return tokens


class Engine:
    """Steps one sequence, in chunks of any size, and starts it anew where it is told to."""

    def __init__(self, prompt: Sequence[int], says: bytes = b"", **params: object) -> None:
        self.guesses: Callable[[], Sequence[int]] = tuple  # a draft for the next step
        self.pieces: list[Piece] = []
        request = GenerationRequest("a", tuple(prompt), SamplingParams(**params))
        self.running = RequestState(request, self._take, Bytes(), frozenset([END]))
        self._says = says  # what it answers, and then the end, instead of what the model's logits say
        self.asked = 0  # logits

    def _take(self, piece: Piece) -> None:
        assert (piece.used is not None) == piece.last
        self.pieces.append(replace(piece, used=None))  # times are never the same

    def step(self, most: int) -> bool:
        sequence = self.running.sequence
        room = sequence.limit - len(sequence.tokens) - 1
        draft = tuple(self.guesses())[:room] if sequence.pending == 1 and sequence.generated else ()
        work = ScheduledTokens(sequence, min(most, sequence.pending) + len(draft), draft)
        start, tokens = sequence.computed, [*sequence.tokens, *draft]
        offsets = list(self.running.wanted(work))
        self.asked += len(offsets)
        rows = [self._logits(tokens[: start + offset + 1]) for offset in offsets]
        sequence.computed += work.certain
        sequence.state = SeenTokens(start + work.count)
        return bool(rows) and self.running.advance(torch.stack(rows))

    def run(self, *chunks: int) -> Engine:
        """`chunks`: most tokens of each step, the last for all that follow; 0 starts anew."""
        left = list(chunks or [1 << 20])
        while True:
            most = left.pop(0) if len(left) > 1 else left[0]
            if most == 0:
                self.running.sequence.computed = 0
            elif self.step(most):
                return self

    def _logits(self, tokens: Sequence[int]) -> torch.Tensor:
        logits = logits_after(tokens)
        at = len(tokens) - self.running.sequence.prompt_length
        if self._says and at >= 0:
            logits[[*self._says, END][min(at, len(self._says))]] += 1000.0  # more may be asked for a draft
        return logits

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def scores(self) -> list:
        return [score for piece in self.pieces for score in piece.logprobs]


def test_the_end_token_ends_and_is_not_shown() -> None:
    engine = Engine(b"ab", b"hey", temperature=0).run()
    assert engine.text == "hey"
    assert (engine.pieces[-1].finish_reason, engine.pieces[-1].tokens) == ("stop", 4)
    assert all(piece.logprobs == () for piece in engine.pieces)


def test_the_end_token_can_be_ignored() -> None:
    engine = Engine(b"ab", b"\x00", temperature=0, ignore_eos=True, max_tokens=2).run()
    assert (engine.text, engine.pieces[-1].finish_reason, engine.pieces[-1].tokens) == ("\x00", "length", 2)


def test_logits_are_asked_for_only_where_they_are_needed() -> None:
    assert Engine(b"abcdef", b"xy", temperature=0).run(2).asked == 3
    assert Engine(b"abcdef", b"xy", temperature=0, echo=True).run(2).asked == 3
    assert Engine(b"abcdef", b"xy", temperature=0, logprobs=1).run(2).asked == 3
    assert Engine(b"abcdef", b"xy", temperature=0, logprobs=1, echo=True).run(2).asked == 3 + 5


def test_logprobs_are_the_model_s_whatever_the_sampling() -> None:
    params = {"logprobs": 3, "max_tokens": 5, "seed": 1}
    engine = Engine(b"abc", temperature=0.3, top_k=1, logit_bias=((65, 100.0),), **params).run()
    assert [score.chosen.token for score in engine.scores] == [65] * 5
    for i, score in enumerate(engine.scores):
        wanted = torch.log_softmax(logits_after([*b"abc", *[65] * i]), -1)
        assert score.chosen.logprob == pytest.approx(float(wanted[65]), abs=1e-5)
        values, tokens = wanted.topk(3)
        assert [c.token for c in score.top] == tokens.tolist()
        assert [c.logprob for c in score.top] == pytest.approx(values.tolist(), abs=1e-5)
        assert [c.data for c in score.top] == [Bytes().token_bytes(t) for t in tokens.tolist()]


def test_every_token_has_one_logprob_also_those_that_are_not_shown() -> None:
    engine = Engine(
        b"p", b"naive caf\xc3\xa9 STOP", temperature=0, logprobs=0, stop=(" STOP",), max_tokens=50
    ).run()
    assert engine.text == "naive café"
    assert engine.pieces[-1].finish_reason == "stop"
    assert b"".join(score.chosen.data for score in engine.scores) == "naive café STOP".encode()
    assert [score.offset for score in engine.scores] == [*range(9), 9, 9, *range(10, 15)]
    assert len(engine.scores) == engine.pieces[-1].tokens
    assert all(piece.logprobs for piece in engine.pieces)
    ended = Engine(b"p", b"hey", temperature=0, logprobs=0).run()
    assert [score.chosen.data for score in ended.scores] == [b"h", b"e", b"y", b"<end>"]


def test_echo_begins_with_the_prompt() -> None:
    engine = Engine("pré".encode(), b"x", temperature=0, echo=True).run(2)
    assert [piece.text for piece in engine.pieces] == ["préx", ""]
    assert engine.pieces[-1].tokens == 2


def test_echo_alone_picks_nothing() -> None:
    engine = Engine(b"abc", echo=True, max_tokens=0, logprobs=0).run(2)
    assert engine.pieces == [Piece("abc", 0, "length", logprobs=engine.pieces[0].logprobs)]
    assert len(engine.scores) == 3


def test_a_stop_string_in_the_prompt_stops_nothing() -> None:
    engine = Engine(b"a.b", b"c.d", temperature=0, echo=True, stop=(".",)).run()
    assert (engine.text, engine.pieces[-1].finish_reason) == ("a.bc", "stop")


prompts = st.text(min_size=1, max_size=8).map(str.encode)


@given(prompts, st.lists(st.integers(0, 6), max_size=30), st.booleans(), st.sampled_from([None, 0, 2]))
def test_chunks_and_starting_anew_change_nothing(
    prompt: bytes, chunks: list[int], echo: bool, logprobs: int | None
) -> None:
    params = {"max_tokens": 12, "seed": 7, "echo": echo, "logprobs": logprobs, "frequency_penalty": 0.5}
    alone = Engine(prompt, **params).run()
    cut = Engine(prompt, **params).run(*chunks, 3)
    assert cut.pieces == alone.pieces
    assert cut.running.sequence.tokens == alone.running.sequence.tokens


sampling = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.4, 1.0]),
        "top_p": st.sampled_from([0.6, 1.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.5]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
        "logit_bias": st.sampled_from([(), ((65, 4.0), (66, 4.0))]),
        "logprobs": st.sampled_from([None, 0, 2]),
        "stop": st.sampled_from([(), ("A",), ("AB",)]),
        "echo": st.booleans(),
        "max_tokens": st.integers(1, 12),
    }
)


@given(prompts, sampling, st.data())
def test_drafts_change_nothing_but_how_many_tokens_come_at_once(
    prompt: bytes, params: dict[str, object], data: st.DataObject
) -> None:
    params = {**params, "seed": 7}
    alone = Engine(prompt, **params).run()
    text = alone.running.sequence.tokens
    engine = Engine(prompt, **params)

    def guesses() -> list[int]:
        """Right up to some place."""
        right = text[len(engine.running.sequence.tokens) :][: data.draw(st.integers(0, 5))]
        return [*right, *data.draw(st.lists(st.integers(0, 255), max_size=2))]

    engine.guesses = guesses
    while not engine.step(1 << 20):
        its = engine.running.sequence
        assert its.computed == len(its.tokens) - 1 == its.state.tokens
        if data.draw(st.integers(0, 3)) == 0:  # preempted
            its.computed = 0
    assert engine.text == alone.text
    assert engine.scores == alone.scores
    assert engine.running.sequence.tokens == text
    assert replace(engine.pieces[-1], text="", logprobs=()) == replace(alone.pieces[-1], text="", logprobs=())


def test_a_guess_that_is_right_is_a_token_of_the_same_step() -> None:
    engine = Engine(b"ab", b"hey you", temperature=0)
    engine.guesses = lambda: b"ey!"
    engine.run()
    assert [piece.tokens for piece in engine.pieces][:2] == [1, 4]
    assert engine.text == "hey you"


def test_what_follows_the_end_in_a_draft_is_not_looked_at() -> None:
    engine = Engine(b"ab", b"hey", temperature=0, stop=("e",), logprobs=0)
    engine.guesses = lambda: b"ey"
    engine.run()
    assert (engine.text, engine.pieces[-1].tokens, engine.pieces[-1].finish_reason) == ("h", 2, "stop")
    assert len(engine.scores) == 2


@pytest.mark.parametrize("right", [True, False])
def test_with_drafts_tokens_have_the_model_s_probabilities(right: bool) -> None:
    """Chi-square of the second and third token over seeds, whether the guess is likely or not."""
    candidates = (65, 66, 67, 68)
    bias = tuple((token, 100.0) for token in candidates)
    params = {"logit_bias": bias, "max_tokens": 3, "temperature": 1.5, "ignore_eos": True}
    seen: Counter[tuple[int, ...]] = Counter()
    runs = 3000
    for seed in range(runs):
        engine = Engine(b"p", seed=seed, **params)
        its = engine.running.sequence
        probable = (max if right else min)(candidates, key=lambda token: float(logits_after(its.tokens)[token]))
        engine.guesses = lambda guess=probable: (guess, 65)
        engine.run()
        seen[tuple(its.tokens[1:])] += 1
    expected: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        expected = {
            (*before, token): share * p
            for before, share in expected.items()
            for token, p in zip(candidates, probabilities([*b"p", *before], candidates, 1.5), strict=True)
        }
    likely = {tokens: share for tokens, share in expected.items() if runs * share >= 5}
    rest = 1 - sum(likely.values())
    chi = sum((seen[tokens] - runs * share) ** 2 / (runs * share) for tokens, share in likely.items())
    chi += (runs - sum(seen[tokens] for tokens in likely) - runs * rest) ** 2 / (runs * rest) if rest > 0 else 0
    freedom = len(likely)
    assert chi < freedom + 4 * (2 * freedom) ** 0.5  # four deviations above the mean


def probabilities(tokens: Sequence[int], candidates: Sequence[int], temperature: float) -> list[float]:
    return torch.softmax(logits_after(tokens)[list(candidates)] / temperature, -1).tolist()


@given(prompts)
def test_echoed_logprobs_are_those_of_the_prompt(prompt: bytes) -> None:
    scores = Engine(prompt, b"x", temperature=0, echo=True, logprobs=1).run(3).scores
    assert b"".join(score.chosen.data for score in scores) == prompt + b"x<end>"
    assert (scores[0].chosen.logprob, scores[0].top) == (None, ())
    for i in range(1, len(prompt)):
        wanted = torch.log_softmax(logits_after(prompt[:i]), -1)
        assert scores[i].chosen.logprob == pytest.approx(float(wanted[prompt[i]]), abs=1e-5)
    characters = [len(prompt[:i].decode(errors="ignore")) for i in range(len(prompt) + 1)]
    assert [score.offset for score in scores][: len(prompt) + 1] == characters


def test_what_cannot_be_is_a_number_in_json() -> None:
    engine = Engine(b"ab", temperature=0, logprobs=2, max_tokens=1)
    engine.running.wanted(ScheduledTokens(engine.running.sequence, 2))
    logits = torch.full((VOCABULARY,), float("-inf"))
    logits[70] = 0.0
    assert engine.running.advance(logits[None])
    assert [c.logprob for c in engine.scores[0].top] == [0.0, -9999.0]


def test_failing_tells_the_listener() -> None:
    engine = Engine(b"ab")
    engine.running.fail("it broke")
    assert engine.pieces == [Piece("", 0, error="it broke")]
