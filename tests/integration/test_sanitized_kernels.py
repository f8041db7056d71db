"""Tests of kernels, which run on each instruction set, again under sanitizers of addresses and undefined behaviour."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from faasmoe.experts.kernels.library import VARIABLE, instruction_sets
from tests.tools import tool

ROOT = Path(__file__).parents[2]
FLAGS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
ON_EACH = re.compile(r"on_each\(|instruction_sets\(\)")
TESTS = [file for file in (ROOT / "tests/unit").rglob("test_*.py") if ON_EACH.search(file.read_text())]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that computes with kernels for the best instruction set here."""
    compiler, folder = tool("gcc", "gcc"), tmp_path_factory.mktemp("sanitized")
    runtimes = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if missing := [name for name in runtimes if not os.path.isabs(name)]:
        pytest.skip(f"{', '.join(missing)} is missing; on Debian: sudo apt-get install gcc")
    build = [sys.executable, ROOT / "hatch_build.py", "--into", folder, "--only", instruction_sets()[0], *FLAGS]
    subprocess.run(build, env={**os.environ, "CC": compiler}, check=True, timeout=240)
    (kernels,) = folder.glob("*.so")
    options = {"ASAN_OPTIONS": "detect_leaks=0", "LD_PRELOAD": " ".join(runtimes), VARIABLE: str(kernels)}
    return os.environ | options


def test_kernels_touch_nothing_but_what_they_are_given(sanitized: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(
        command, cwd=ROOT, env=sanitized, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_kernel_that_reads_beyond_its_array_would_be_seen(sanitized: dict[str, str]) -> None:
    code = (
        "import numpy, faasmoe.experts.kernels.library as of\n"
        "finite = of.LIBRARY.function('all_finite', of.ADDRESS, of.INT, result=of.BOOL)\n"
        "numbers = numpy.zeros(1024, numpy.float32)\n"
        "finite(numbers.ctypes.data, 1025)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=sanitized, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "finite.c" in done.stderr
