from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.request_state import RequestState
from faasmoe.engine.scheduler import ScheduledTokens
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


class Engine:
    """Steps one sequence, in chunks of any size, and starts it anew where it is told to."""

    def __init__(self, prompt: Sequence[int], says: bytes = b"", **params: object) -> None:
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
        work = ScheduledTokens(sequence, min(most, sequence.pending))
        start = sequence.computed
        offsets = list(self.running.wanted(work))
        self.asked += len(offsets)
        rows = [self._logits(sequence.tokens[: start + offset + 1]) for offset in offsets]
        sequence.computed += work.count
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
            logits[[*self._says, END][at]] += 1000.0
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
