from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faasmoe.engine.output.detokenizer import Detokenizer


class Bytes:
    """A tokenizer whose tokens are single bytes."""

    decoded = 0  # tokens so far

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Tokens from 256 on are special."""
        self.decoded += len(token_ids)
        return bytes(token for token in token_ids if token < 256).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""


def stream(text: str, *stops: str) -> tuple[list[str], Detokenizer]:
    out = Detokenizer(Bytes(), stops)
    pieces = []
    for byte in text.encode():
        pieces.append(out.push(byte))
        if out.stopped:
            break
    return [*pieces, out.flush()], out


@given(st.text(max_size=40))
def test_pieces_make_the_text_and_break_no_character(text: str) -> None:
    pieces, _ = stream(text)
    assert "".join(pieces) == text
    assert all(
        "\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces if "\N{REPLACEMENT CHARACTER}" not in text
    )


UTF8 = [0x41, 0x80, 0xBF, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x8E, 0x88, 0xFF, 300, 300]


@given(st.lists(st.sampled_from(UTF8), max_size=80))
@example([0x82, 0xFF, 0x8E, 0xF0, 300, 0x9F, 0x80, 300, 0xBF])  # special tokens between the bytes of a character
def test_pieces_of_what_is_no_text_make_what_decoding_all_makes(tokens: list[int]) -> None:
    out = Detokenizer(Bytes())
    assert "".join([*map(out.push, tokens), out.flush()]) == Bytes().decode(tokens)


@pytest.mark.parametrize("token", [0x80, 0xE2, 300])
def test_tokens_that_never_become_text_do_not_cost_more_and_more(token: int) -> None:
    """2,000 of them took a second of the engine's thread, and four times that with twice as many."""
    tokenizer = Bytes()
    out = Detokenizer(tokenizer)
    for _ in range(1000):
        out.push(token)
    assert tokenizer.decoded < 1000 * 40
    assert out.push(0x41).endswith("A")


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_text_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    pieces, out = stream(text, *stops)
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert ("".join(pieces), out.stopped) == (text, False)
        return
    seen = text[: min(ends)]  # tokens come one by one: the stop that is whole first ends it
    assert out.stopped
    assert "".join(pieces) == seen[: min(seen.index(stop) for stop in stops if stop in seen)]


@pytest.mark.parametrize("text", ["x🎈y", "e\u0301"])
def test_nothing_is_shown_of_half_a_character(text: str) -> None:
    pieces, _ = stream(text)
    assert [piece for piece in pieces if piece] == list(text)


def test_what_may_be_a_stop_is_held_back_until_it_is_not() -> None:
    pieces, _ = stream("a\n\nb\nc", "\n\nb\nd")
    assert pieces == ["a", "", "", "", "", "\n\nb\nc", ""]


def test_the_space_before_the_first_word_is_kept() -> None:
    class Words:
        """Like SentencePiece: a word token brings its space, but the first one decoded loses it."""

        def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
            return "".join(f" w{i}" for i in token_ids).removeprefix(" ")

    assert Detokenizer(Words()).push(1) == "w1"
    assert Detokenizer(Words(), context=[7, 8]).push(1) == " w1"


def test_bytes_that_never_become_a_character_come_at_the_end() -> None:
    out = Detokenizer(Bytes())
    assert [out.push(byte) for byte in b"a\xf0\x9f"] == ["a", "", ""]
    assert out.flush() == "\N{REPLACEMENT CHARACTER}"
