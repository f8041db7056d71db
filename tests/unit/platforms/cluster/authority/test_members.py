"""Nodes that have joined."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import certificates
from faasmoe.platforms.cluster.authority.members import Member, MemberBook
from faasmoe.platforms.cluster.authority.revocations import Revocation
from tests import authorities


def member(key: str, port: int) -> Member:
    return Member(fingerprint=key, host="10.0.0.1", port=port)


@pytest.fixture
def book(tmp_path: Path) -> MemberBook:
    return MemberBook(tmp_path)


def test_members_are_kept_with_their_newest_address(book: MemberBook, tmp_path: Path) -> None:
    assert book.members() == {}
    for name, port in (("b", 1), ("a", 2), ("b", 3)):
        book.join(name, member(name, port), replace=False)
        assert list(book.members()) == list(MemberBook(tmp_path).members())
    assert [(name, each.port) for name, each in book.members().items()] == [("b", 3), ("a", 2)]


def test_a_name_is_that_of_one_key(book: MemberBook) -> None:
    book.join("a", member("one", 1), replace=False)
    with pytest.raises(OptionError, match=r"another node named a has joined: .* --node a"):
        book.join("a", member("two", 2), replace=False)
    assert book.members()["a"].port == 1
    book.join("a", member("two", 2), replace=True)
    assert book.members()["a"].fingerprint == "two"


def test_an_address_is_that_of_one_node(book: MemberBook) -> None:
    book.join("a", member("one", 1), replace=False)
    with pytest.raises(OptionError, match=r"10\.0\.0\.1:1 is the address of node a"):
        book.join("b", member("two", 1), replace=True)
    assert list(book.members()) == ["a"]


def test_who_was_removed_comes_back_by_a_token_of_its_own(book: MemberBook) -> None:
    book.join("a", member("one", 1), replace=False)
    book.remove("a")
    assert book.members() == {}
    with pytest.raises(OptionError, match=r"node a was removed; .*faasmoe nodes token create --node a"):
        book.join("a", member("one", 1), replace=False)
    book.join("b", member("two", 1), replace=False)
    book.join("a", member("one", 2), replace=True)
    assert list(book.members()) == ["a", "b"]
    for name in ("c", "c"):
        with pytest.raises(OptionError, match="node c: none of that name has joined"):
            book.remove(name)


def test_a_revoked_certificate_is_refused_until_the_node_has_another_key(tmp_path: Path) -> None:
    book, identity = MemberBook(tmp_path), authorities.identity(tmp_path, name="a")
    shown = identity.certificate()
    ours = certificates.fingerprint(certificates.public_of(shown))
    book.check("a", shown)  # it has never joined
    book.join("a", member(ours, 1), replace=False)
    book.check("a", shown)
    book.remove("a")
    book.check("a", shown)  # until it is empty
    book.revoke("a")
    for seen in (book, MemberBook(tmp_path)):
        with pytest.raises(OptionError, match=r"its certificate was revoked; .*token create --node a"):
            seen.check("a", shown)
    with pytest.raises(OptionError, match="node a was removed"):
        book.join("a", member(ours, 1), replace=False)
    book.join("a", member("two", 1), replace=True)
    with pytest.raises(OptionError, match="its certificate is of a key that it has replaced since"):
        book.check("a", shown)
    with pytest.raises(OptionError, match="node b: none of that name has joined"):
        book.revoke("b")


def test_agents_are_told_until_when_certificates_are_revoked_also_when_the_node_is_back(tmp_path: Path) -> None:
    now = datetime(2027, 1, 2, tzinfo=UTC)
    book = MemberBook(tmp_path, lambda: now)
    book.join("a", member("one", 1), replace=False)
    book.join("b", member("two", 2), replace=False)
    book.remove("b")
    assert book.revocations() == ()
    book.revoke("a")
    assert book.revocations() == (Revocation("a", now.timestamp()),)
    book.join("a", Member(fingerprint="three"), replace=True)
    book.join("a", member("three", 1), replace=False)
    assert MemberBook(tmp_path).revocations() == (Revocation("a", now.timestamp()),)


def test_a_node_is_a_member_once_it_was_there(book: MemberBook) -> None:
    book.join("a", Member(fingerprint="one"), replace=False)
    book.join("b", Member(fingerprint="two"), replace=False)
    assert book.members() == {}
    book.join("a", member("one", 1), replace=False)
    book.join("a", Member(fingerprint="one"), replace=False)  # by a token again
    assert book.members()["a"].port == 1
    with pytest.raises(OptionError, match="another node named b has joined"):
        book.join("b", member("three", 2), replace=False)


def test_a_removed_nodes_name_is_free_for_another(book: MemberBook) -> None:
    book.join("a", member("one", 1), replace=False)
    book.remove("a")
    book.join("a", member("two", 2), replace=False)
    assert book.members()["a"].fingerprint == "two"
