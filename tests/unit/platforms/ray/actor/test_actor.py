"""The actor with an agent that is played by a test."""

from __future__ import annotations

import os

import msgspec
import pytest

from faasmoe.platforms.ray.actor import actor
from faasmoe.platforms.ray.actor.actor import AgentActor
from faasmoe.platforms.ray.messages import AgentLoad, AgentOrder, AgentSettings, Certificate
from tests.unit.clocks import Clock

SETTINGS = AgentSettings(pool="p", namespace="n", local_options="{}", preload=(), log="text:info")
ORDER = AgentOrder(name="a", host="127.0.0.1", memory=5, settings=SETTINGS)
OTHER = msgspec.structs.replace(ORDER, settings=msgspec.structs.replace(SETTINGS, pool="q"))


class PlayedAgent:
    def __init__(self, order: AgentOrder) -> None:
        self.order = order
        self.trouble = "it does not answer"
        self.told: AgentLoad | None = AgentLoad(port=7, claimed=True)
        self.certificates: list[Certificate] = []
        self.drains: list[float] = []
        self.closed = False

    def certify(self, certificate: Certificate) -> None:
        self.certificates.append(certificate)

    def load(self) -> AgentLoad | None:
        return self.told

    def drain(self, seconds: float) -> None:
        self.drains.append(seconds)

    def close(self) -> None:
        self.closed = True


class Stage:
    """An actor, and what it has done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(actor.threading.Thread, "start", lambda _: None)
        self.clock = Clock()
        self.agents: list[PlayedAgent] = []
        self.error = ""
        self.actor = AgentActor(5, lambda: None, self.start, self.clock)

    def start(self, order: AgentOrder) -> PlayedAgent:
        if self.error:
            raise OSError(self.error)
        self.agents.append(PlayedAgent(order))
        return self.agents[-1]


def port(stage: Stage) -> int:
    """Where the agent listens."""
    return stage.actor.tend(ORDER).load.port


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_an_agent_is_started_once_and_told_of(stage: Stage) -> None:
    assert port(stage) == 0
    assert (port(stage), port(stage)) == (7, 7)
    (agent,) = stage.agents
    assert agent.order == msgspec.structs.replace(ORDER, raylet=os.getppid())
    agent.told = AgentLoad(calls=3)
    assert stage.actor.tend(ORDER).load.calls == 3


def test_an_agent_that_ends_is_started_again_after_a_pause(stage: Stage) -> None:
    stage.actor.tend(ORDER)
    stage.agents[0].told = None
    facts = stage.actor.tend(ORDER)
    assert (facts.load.port, facts.trouble) == (0, "its agent has ended: it does not answer")
    assert port(stage) == 0
    stage.clock.now += 1
    assert (port(stage), port(stage)) == (0, 7)
    assert len(stage.agents) == 2


def test_a_certificate_is_handed_to_the_agent(stage: Stage) -> None:
    certificate = Certificate(request=b"r", certificate=b"c", authority=b"a")
    stage.actor.tend(ORDER)
    stage.actor.tend(msgspec.structs.replace(ORDER, certificate=certificate))
    assert stage.agents[0].certificates == [certificate]


def test_an_agent_that_does_not_start_is_told_and_tried_again(stage: Stage) -> None:
    stage.error = "the node's address 10.0.0.1:0: Cannot assign requested address"
    assert stage.actor.tend(ORDER).trouble == f"no agent starts: {stage.error}"
    said, stage.error = stage.error, ""
    assert stage.actor.tend(ORDER).trouble == f"no agent starts: {said}"
    assert stage.agents == []
    stage.clock.now += 1
    assert (port(stage), port(stage)) == (0, 7)


def test_a_drained_agent_is_not_started_again(stage: Stage) -> None:
    stage.actor.tend(ORDER)
    stage.actor.drain("q", 3.0)  # another server's
    assert stage.agents[0].drains == []
    for seconds in (3.0, 0.0):
        stage.actor.drain("p", seconds)
    assert stage.agents[0].drains == [3.0, 0.0]
    assert stage.actor.tend(ORDER).draining
    stage.agents[0].told = None
    facts = stage.actor.tend(ORDER)
    assert (facts.draining, facts.load.port, facts.trouble) == (True, 0, "")


def test_the_agent_of_a_server_that_asks_is_not_given_to_another(stage: Stage) -> None:
    stage.actor.tend(ORDER)
    facts = stage.actor.tend(OTHER)
    assert (facts.foreign, facts.load.port) == (True, 0)
    assert "another server has an agent there" in facts.trouble
    stage.clock.now += 16
    stage.agents[0].told = AgentLoad(port=7, claimed=True, headed=True)  # Ray's driver alone is gone
    assert stage.actor.tend(OTHER).foreign
    stage.agents[0].told = AgentLoad(port=7, claimed=True)
    assert not stage.actor.tend(OTHER).foreign
    assert stage.agents[0].closed
    assert stage.agents[1].order.settings.pool == "q"


def test_an_agent_is_forgotten_when_nobody_asks_and_no_server_has_it(stage: Stage) -> None:
    stage.actor.tend(ORDER)
    assert stage.actor.forgotten_in() == 60
    stage.clock.now += 61
    assert stage.actor.forgotten_in() == 5  # its server has lost Ray, and serves
    stage.agents[0].told = AgentLoad(claimed=False)
    assert stage.actor.forgotten_in() == 0
    stage.actor.tend(ORDER)
    assert stage.actor.forgotten_in() == 60
