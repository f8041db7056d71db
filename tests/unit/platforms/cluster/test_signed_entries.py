"""Signatures under what nodes run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.authority.signing import signer, verifier
from faasmoe.platforms.cluster.protocol import messages
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry, Install
from faasmoe.platforms.cluster.signed_entries import PURPOSE, check_signed, signed
from tests import authorities

CONTENT = FunctionContent(b"artifact")
SPEC = FunctionSpec("f", "m:a", Path("/a"), memory=7, files=(FileRange(Path("/w"), 0, 10),), keep_alive=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


def entry(
    folder: Path, spec: FunctionSpec | None = SPEC, content: FunctionContent | None = CONTENT
) -> CatalogueEntry:
    """A signed entry, as it arrives."""
    name = spec.name if spec else "f"
    (made,) = signed(
        [CatalogueEntry(name, 1, spec, content, ("a",))], signer(authorities.server(folder).key(), PURPOSE)
    )
    asked = messages.read_asked(memoryview(messages.encode(Install((made,)))))
    assert isinstance(asked, Install)
    return asked.entries[0]


def check(folder: Path, *entries: CatalogueEntry) -> None:
    check_signed(entries, verifier(authorities.server(folder).certificate(), PURPOSE))


def test_what_the_server_has_signed_is_taken_wherever_it_is_to_run(folder: Path) -> None:
    made = entry(folder)
    check(folder, made, msgspec.structs.replace(made, stamp=9, hosts=("b",)))
    check(folder, CatalogueEntry("gone", 2, None))


@pytest.mark.parametrize(
    "change",
    [
        {"handler": "os:system"},
        {"artifact": Path("/b")},
        {"memory": 8},
        {"files": ()},
        {"files": (FileRange(Path("/w"), 1, 10),)},
    ],
)
def test_another_function_than_was_signed_is_refused(folder: Path, change: dict[str, Any]) -> None:
    made = entry(folder)
    assert made.spec
    false = msgspec.structs.replace(made, spec=replace(made.spec, **change))
    with pytest.raises(OptionError, match="function f: the server has not signed it and the hash of its artifact"):
        check(folder, made, false)


def test_another_artifact_name_or_signer_is_refused(folder: Path, tmp_path: Path) -> None:
    made = entry(folder)
    for false in (
        msgspec.structs.replace(made, content=FunctionContent(b"other")),
        msgspec.structs.replace(made, name="g"),
        msgspec.structs.replace(made, signature=b""),
        entry(tmp_path),
    ):
        with pytest.raises(OptionError, match="the server has not signed it"):
            check(folder, false)


def test_an_artifact_without_a_hash_is_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match="function f: its artifact /a is no file that has a hash"):
        check(folder, entry(folder, content=None))
