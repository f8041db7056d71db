"""The limits of a real control group are those of whoever runs in it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest

from faasmoe.errors import MeasurementError, OptionError
from faasmoe.evaluation.memory_limit import MemoryLimit

LIMIT = 1 << 30
BUDGET = """
import sys
from faasmoe.evaluation.memory_limit import join
join(sys.argv[1])
from faasmoe.engine.kv.allocator import budget
from faasmoe.protocol.config import EngineOptions
print(budget(EngineOptions()))
"""


def test_keys_and_values_have_a_share_of_what_the_control_group_has() -> None:
    with ExitStack() as stack:
        try:
            limit = stack.enter_context(MemoryLimit(LIMIT))
        except (MeasurementError, OptionError) as error:
            pytest.skip(str(error))
        command = [sys.executable, "-c", BUDGET, str(limit.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert 0 < int(done.stdout) < LIMIT // 2
