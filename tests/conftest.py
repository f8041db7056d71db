"""Shared by all tests."""

from __future__ import annotations

import transformers


def pytest_configure() -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
