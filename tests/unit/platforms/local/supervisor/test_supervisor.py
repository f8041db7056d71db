"""The supervisor of daemons that are no processes, on a clock that moves only while the supervisor waits."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.errors import PlatformError
from faasmoe.platforms.local.protocol.messages import SOCKET
from faasmoe.platforms.local.supervisor.daemon_process import DaemonProcess
from faasmoe.platforms.local.supervisor.supervisor import Supervisor
from faasmoe.util.liveness import TICK, ProcessState
from tests.unit.platforms.local.supervisor.daemons import IDLE, STOPPED, Life, World

Told = list[tuple[str, str]]


def tell(told: Told) -> Callable[[Supervisor], None]:
    return lambda supervisor: told.append((supervisor.health.state, supervisor.health.why))


def test_the_pool_is_there_when_the_first_daemon_is_ready() -> None:
    world = World(Life(ready=5.0))
    with world.supervisor() as supervisor:
        assert world.clock.now - world.begun == pytest.approx(5.0)
        assert (supervisor.folder / SOCKET).exists()
        assert (supervisor.health.state, supervisor.health.why) == ("ok", "")
    assert world.daemons[0].returncode == 0  # though the supervisor was closed before its thread had run


@pytest.mark.parametrize(
    ("life", "message", "seconds"),
    [
        (
            OSError(11, "Resource temporarily unavailable"),
            "cannot be started: Resource temporarily unavailable",
            0,
        ),
        (Life(ready=None, ends=2.0, status=1), "it ended with status 1; its messages say why", 2),
        (Life(ready=None, ends=2.0, status=0), "it ended with status 0; its messages say why", 2),
        (Life(ready=None), "it was not ready within 60 s", 60),
        (Life(ready=None, hangs=3.0, state=STOPPED), "it was stopped", 4),
    ],
)
def test_a_first_daemon_that_does_not_start_is_an_error(
    life: Life | OSError, message: str, seconds: float
) -> None:
    world = World(life)
    with pytest.raises(PlatformError, match=message), world.supervisor():
        pass
    assert world.clock.now - world.begun == pytest.approx(seconds, abs=1.1)
    assert len(world.starts) == 1
    assert all(daemon.returncode is not None for daemon in world.daemons)


def test_a_daemon_that_dies_is_replaced_and_all_is_well_when_the_next_has_answered() -> None:
    told: Told = []
    world = World(Life(ends=5.0, status=-signal.SIGKILL), Life(ready=4.0))
    world.run((4.0, tell(told)), (7.0, tell(told)), (11.0, tell(told)), seconds=12.0)
    assert told[0] == told[2] == ("ok", "")
    assert told[1][0] == "starting"
    assert "the platform's daemon was lost: killed by SIGKILL" in told[1][1]
    first, second = world.starts
    assert 5.0 <= second - first <= 5.2
    assert [daemon.returncode for daemon in world.daemons] == [-signal.SIGKILL, 0]


@pytest.mark.parametrize(
    ("life", "cause", "seconds"),
    [
        (Life(hangs=5.0, state=STOPPED), "it was stopped", 1.0),
        (Life(hangs=5.0), "it does nothing and does not answer", 6.5),
    ],
)
def test_a_daemon_that_hangs_is_killed_and_replaced(
    life: Life, cause: str, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(life, Life())
    world.run(seconds=20.0)
    first, second = world.daemons
    assert first.returncode == -signal.SIGKILL
    assert first.ended - first.begun - 5.0 <= seconds
    assert second.returncode == 0
    assert f"the platform's daemon was lost, another is started: {cause}" in caplog.text


def test_a_daemon_that_waits_for_a_core_is_not_killed() -> None:
    world = World(Life(hangs=5.0, state=ProcessState(stopped=False, runnable=True, cpu=1.0)))
    world.run(seconds=100.0)
    assert len(world.starts) == 1


def test_nobody_is_killed_after_all_were_frozen() -> None:
    """The daemon is found stopped at the first look after the supervisor was frozen itself, and goes on then."""

    def freeze(world: World) -> None:
        world.clock.now += 70

    world = World(Life())
    pauses = [(at, lambda _: freeze(world)) for at in (5.0, 80.0, 160.0)]
    world.run(*pauses, seconds=250.0)
    assert len(world.starts) == 1


def test_daemons_that_die_again_and_again_are_started_after_growing_pauses() -> None:
    no_process = OSError(11, "Resource temporarily unavailable")
    world = World(Life(ends=1.0, status=1), *[Life(ends=0.5, status=1), no_process] * 6, Life())
    world.run(seconds=120.0)
    pauses = [later - earlier for earlier, later in pairwise(world.starts)]
    assert len(pauses) == 13
    assert pauses[0] <= 1.2
    assert all(4.0 <= pause <= 8.6 for pause in pauses[-5:])


def test_a_daemon_that_nobody_needs_may_end_and_is_started_when_somebody_comes() -> None:
    told: Told = []
    world = World(Life(ends=10.0), Life())
    world.connects = 500.0
    world.run((400.0, tell(told)), (510.0, tell(told)), seconds=520.0)
    assert told == [("ok", ""), ("ok", "")]
    assert world.starts == [0.0, pytest.approx(500.0, abs=0.1)]


def test_a_daemon_that_cannot_start_instances_says_so() -> None:
    told: Told = []
    world = World(Life(trouble="no process can be forked"))
    world.run((5.0, tell(told)), seconds=6.0)
    assert told == [("starting", "no process can be forked")]


def test_a_defect_of_the_supervisor_does_not_end_the_pool(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    check, defects = DaemonProcess.check, [ValueError("unthought of")]

    def defective(self: DaemonProcess) -> str:
        if defects:
            raise defects.pop()
        return check(self)

    monkeypatch.setattr(DaemonProcess, "check", defective)
    world = World(Life())
    world.run(seconds=10.0)
    assert len(world.starts) == 2
    assert "the platform's supervisor has failed" in caplog.text


@pytest.mark.parametrize(("life", "seconds"), [(Life(), 0.1), (Life(hangs=1.0), 5.0),
                                               (Life(hangs=1.0, state=STOPPED), 0.6)])  # fmt: skip
def test_a_daemon_is_told_to_end_and_killed_if_it_does_not(life: Life, seconds: float) -> None:
    world = World(life)
    world.run(seconds=1.2)
    (daemon,) = world.daemons
    assert daemon.returncode == (0 if life.hangs is None else -signal.SIGKILL)
    assert daemon.ended - world.begun <= 1.2 + seconds + 2 * TICK


LIVES = st.one_of(
    st.builds(OSError, st.just(11), st.just("Resource temporarily unavailable")),
    st.builds(Life, ready=st.sampled_from([None, 0.0, 0.3, 20.0]), ends=st.sampled_from([0.0, 0.2, 3.0]),
              status=st.sampled_from([-9, -11, 1])),
    st.builds(Life, ready=st.sampled_from([None, 0.3]), hangs=st.sampled_from([0.0, 2.0]),
              state=st.sampled_from([IDLE, STOPPED])),
)  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(lives=st.lists(LIVES, max_size=5))
def test_whatever_becomes_of_daemons_the_last_one_lives_and_all_is_well(lives: list[Life | OSError]) -> None:
    world, told = World(Life(ends=1.0, status=1), *lives, Life()), list[tuple[str, str]]()
    world.run((450.0, tell(told)), seconds=451.0)
    assert told == [("ok", "")]
    assert len(world.starts) == len(lives) + 2
    assert world.daemons[-1].returncode == 0
