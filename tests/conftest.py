"""Shared by all tests."""

from __future__ import annotations

import torch
import transformers


def pytest_configure() -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)  # tiny models only wait for more
