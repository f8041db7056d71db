"""Shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import hypothesis
import pytest

from faasmoe.util.folders.user_cache import CACHE
from tests import tools
from tests.turns import Turns

_TURNS = pytest.StashKey[Turns]()


def pytest_configure(config: pytest.Config) -> None:
    tools.forbid_bare_names()
    hypothesis.settings.register_profile("untimed", deadline=None, max_examples=60)  # others may share the machine
    hypothesis.settings.load_profile("untimed")
    if hasattr(config, "workerinput"):  # one of several processes of pytest-xdist, which have folders side by side
        turns = config.stash[_TURNS] = Turns(Path(config.option.basetemp).parent)
        config.add_cleanup(turns.close)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the timeout of a test: it does not count while it waits
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    turns = item.config.stash.get(_TURNS, None)
    with turns.turn(alone=item.get_closest_marker("alone") is not None) if turns else nullcontext():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests keep out of the user's cache, and of each other's cores."""
    import torch  # not by the process that only hands out tests to others
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)  # tiny models only wait for more
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(folder))
        root = str(Path(__file__).parents[1])
        patch.setenv("PYTHONPATH", root, prepend=os.pathsep)  # where instances find the functions of tests
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--platform", help="run tests/conformance through this platform only")
