from __future__ import annotations

from pathlib import Path

from faasmoe.platforms.local.daemon import hibernation
from tests.unit.platforms.local.daemon.pools import NOW, SECOND, answer, function_spec, pool_of, start


def test_a_pool_that_was_left_is_taken_up_as_it_was(tmp_path: Path) -> None:
    pool = pool_of(None, function_spec("f"), function_spec("g"))
    pool.own = 13
    running = start(pool, pool.functions["f"])
    answer(running, 20_000, 5_000_000)
    pool.remove(running, "killed by SIGKILL", NOW + SECOND)
    assert hibernation.status(tmp_path) is None
    hibernation.leave(tmp_path, pool, NOW + SECOND)
    assert hibernation.status(tmp_path) == pool.status(NOW + SECOND)
    assert pool.status(NOW).memory_used == 0  # its processes are gone

    another = pool_of(None, function_spec("f"), function_spec("g"))
    hibernation.take_up(tmp_path, another)
    assert another.status(NOW) == pool.status(NOW)
    assert another.functions["f"].last_end == "killed by SIGKILL"
    assert hibernation.status(tmp_path) is None  # there is somebody to ask now


def test_counting_goes_on(tmp_path: Path) -> None:
    pool = pool_of(None, function_spec("f"))
    for _ in range(3):
        running = start(pool, pool.functions["f"])
        answer(running, 20_000)
        pool.remove(running, "", NOW)
        before = pool.status(NOW)
        hibernation.leave(tmp_path, pool, NOW)
        pool = pool_of(None, function_spec("f"))
        hibernation.take_up(tmp_path, pool)
        assert pool.status(NOW) == before
    assert pool.status(NOW).totals.invocations == pool.functions["f"].status().invocations == 3


def test_a_first_daemon_has_nothing_to_take_up(tmp_path: Path) -> None:
    pool = pool_of(None, function_spec("f"))
    hibernation.take_up(tmp_path, pool)
    assert pool.status(NOW).totals.cold_starts == 0
