"""Tokens by which nodes join."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority.identity import utc_now
from faasmoe.platforms.cluster.authority.tokens import JoinToken, TokenBook, read_token

PIN = "p" * 43
HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> object:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> TokenBook:
    return TokenBook(tmp_path, clock)


def kept(tmp_path: Path, text: str) -> JoinToken:
    file = tmp_path / "token"
    file.write_text(f"{text}\n")
    file.chmod(0o600)
    return read_token(file)


def test_a_token_is_good_until_it_expires(book: TokenBook, clock: Clock, tmp_path: Path) -> None:
    token = kept(tmp_path, book.create(HOUR, PIN))
    assert token.pin == PIN
    for _ in range(2):
        assert book.check(token.id, token.secret, "a") is False
    clock.now += HOUR
    with pytest.raises(OptionError, match=f"its token {token.id} has expired"):
        book.check(token.id, token.secret, "a")


def test_a_token_that_is_revoked_is_no_use(book: TokenBook, tmp_path: Path) -> None:
    token, other = kept(tmp_path, book.create(HOUR, PIN)), kept(tmp_path, book.create(HOUR, PIN))
    TokenBook(tmp_path).revoke(token.id)
    with pytest.raises(OptionError, match=f"its token {token.id} was revoked"):
        book.check(token.id, token.secret, "a")
    book.check(other.id, other.secret, "a")
    assert [each.state(utc_now()) for each in book.records().values()] == ["revoked", "good"]
    with pytest.raises(OptionError, match="token nowhere: there is none"):
        book.revoke("nowhere")


def test_a_token_for_a_node_is_for_it_alone(book: TokenBook, tmp_path: Path) -> None:
    token = kept(tmp_path, book.create(HOUR, PIN, "a"))
    assert book.check(token.id, token.secret, "a") is True
    with pytest.raises(OptionError, match="is for node a"):
        book.check(token.id, token.secret, "b")


def test_who_guesses_is_told_nothing(book: TokenBook, tmp_path: Path) -> None:
    token = kept(tmp_path, book.create(HOUR, PIN, "a"))
    for id, secret in (("00000000", token.secret), (token.id, "x" * 43)):
        with pytest.raises(OptionError, match=r"its token is unknown$"):
            book.check(id, secret, "b")


def test_secrets_are_kept_nowhere(book: TokenBook, tmp_path: Path) -> None:
    token = kept(tmp_path, book.create(HOUR, PIN))
    (tmp_path / "token").unlink()
    assert all(token.secret.encode() not in file.read_bytes() for file in tmp_path.iterdir())
    assert token.secret not in f"{token} {token!r}"
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_expired_tokens_are_forgotten_in_time(book: TokenBook, clock: Clock) -> None:
    book.create(HOUR, PIN)
    clock.now += timedelta(days=8)
    book.create(HOUR, PIN)
    assert len(book.records()) == 1


@pytest.mark.parametrize("text", ["", "x", "faasmoe-join-1.0.0.0", f"faasmoe-join-2.{'0' * 8}.{PIN}.{PIN}"])
def test_a_file_without_a_token_is_named_and_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionError, match=r"token: holds no token, as faasmoe nodes token create prints it$"):
        kept(tmp_path, text)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(OptionError, match="others may read"):
        read_token(tmp_path / "token")
