"""Shared by all tests."""

from __future__ import annotations

import hypothesis
import pytest
import torch
import transformers


def pytest_configure() -> None:
    hypothesis.settings.register_profile("untimed", deadline=None)  # other work may share the machine
    hypothesis.settings.load_profile("untimed")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)  # tiny models only wait for more


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--platform", help="run tests/conformance through this platform only")
