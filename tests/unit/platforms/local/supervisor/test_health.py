from __future__ import annotations

from faasmoe.platforms.local.supervisor.health import PoolHealth


def test_a_failure_is_told_until_the_next_daemon_has_answered() -> None:
    health = PoolHealth()
    assert health.state == "starting"
    health.first()
    assert (health.state, health.why) == ("ok", "")
    health.failed("it ended with status -9")
    assert (health.state, health.why) == ("starting", "it ended with status -9")
    health.answered("")
    assert (health.state, health.why) == ("ok", "")


def test_a_daemon_that_cannot_start_instances_is_not_well() -> None:
    health = PoolHealth()
    health.answered("no process can be forked")
    assert (health.state, health.why) == ("starting", "no process can be forked")


def test_a_daemon_that_nobody_needs_may_be_gone() -> None:
    health = PoolHealth()
    health.failed("killed")
    health.rests()
    assert health.state == "ok"
