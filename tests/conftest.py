"""Shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
import transformers

from faasmoe.util.folders.user_cache import CACHE
from tests import tools


def pytest_configure() -> None:
    tools.forbid_bare_names()
    hypothesis.settings.register_profile("untimed", deadline=None, max_examples=60)  # others may share the machine
    hypothesis.settings.load_profile("untimed")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)  # tiny models only wait for more


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests keep out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(folder))
        root = str(Path(__file__).parents[1])
        patch.setenv("PYTHONPATH", root, prepend=os.pathsep)  # where instances find the functions of tests
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--platform", help="run tests/conformance through this platform only")
