"""Which content the head finds for a node that asks for pieces."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.client.weights import supply
from faasmoe.platforms.cluster.client.weights.supply import content_of
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from tests.unit.platforms.cluster.client.members import Members

SPEC = FunctionSpec("f", "m:a", Path("/a"))
CONTENT = FunctionContent(b"its artifact", ())


def deploy(members: Members) -> None:
    members.enter(lambda catalogue: catalogue.deployed([(SPEC, CONTENT)]))


def test_what_is_deployed_is_found_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "_LEARN_SECONDS", 0.0)
    members = Members()
    deploy(members)
    assert content_of(members, {}, "f", CONTENT.digest) == CONTENT
    assert content_of(members, {}, "f", "another") is None
    assert content_of(members, {}, "g", CONTENT.digest) is None


def test_what_another_client_has_just_deployed_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "_LEARN_SECONDS", 60.0)
    members = Members()
    threading.Timer(0.1, lambda: deploy(members)).start()
    assert content_of(members, {}, "f", CONTENT.digest) == CONTENT
