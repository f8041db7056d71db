"""Certificates that were revoked, as agents know them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority.authority import LIFETIME
from faasmoe.platforms.cluster.authority.identity import Role, utc_now
from faasmoe.platforms.cluster.authority.revocations import Revocation, RevocationBook
from tests import authorities


def made(folder: Path, ago: timedelta) -> bytes:
    """A certificate of the orchestrators of node z."""
    return authorities.identity(folder / str(ago), Role.ORCHESTRATOR, "z", -ago).certificate()


def revocation(node: str, ago: timedelta) -> Revocation:
    return Revocation(node, (utc_now() - ago).timestamp())


HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_what_was_made_before_is_refused_and_what_was_made_since_is_not(tmp_path: Path) -> None:
    book = RevocationBook(tmp_path / "a")
    before, since = made(tmp_path, 3 * HOUR), made(tmp_path, HOUR)
    book.check("z", before)
    assert book.learn([revocation("z", 2 * HOUR)])
    for seen in (book, RevocationBook(tmp_path / "a")):  # the node has started again
        with pytest.raises(OptionError, match="certificates of node z were revoked on 20"):
            seen.check("z", before)
        seen.check("z", since)
        seen.check("y", before)


def test_the_newest_of_a_node_holds_whoever_tells_it(tmp_path: Path) -> None:
    book = RevocationBook(tmp_path)
    newest = revocation("z", HOUR)
    assert book.learn([newest])
    assert not book.learn([newest, revocation("z", 2 * HOUR)])
    assert book.learn([revocation("y", HOUR)])
    with pytest.raises(OptionError, match="node z were revoked"):
        book.check("z", made(tmp_path, timedelta(minutes=61)))


def test_it_is_forgotten_when_such_certificates_have_expired(tmp_path: Path) -> None:
    book = RevocationBook(tmp_path, lambda: utc_now() - LIFETIME)
    book.learn([revocation("z", DAY)])
    assert not RevocationBook(tmp_path).learn([revocation("y", LIFETIME + DAY)])
    later = RevocationBook(tmp_path, lambda: utc_now() + LIFETIME)
    later.learn([Revocation("x", (utc_now() + LIFETIME).timestamp())])
    assert (tmp_path / "revoked.json").read_text().startswith('{"x":')


def test_it_holds_though_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    book = RevocationBook(tmp_path / "gone")
    (tmp_path / "gone").symlink_to(tmp_path / "file")
    with pytest.raises(OptionError, match="gone"):
        book.learn([revocation("z", HOUR)])
    with pytest.raises(OptionError, match="node z were revoked"):
        book.check("z", made(tmp_path, 2 * HOUR))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "revoked.json").write_text("[]")
    (tmp_path / "revoked.json").chmod(0o600)
    with pytest.raises(OptionError, match=r"revoked\.json: was not written by this program"):
        RevocationBook(tmp_path)
