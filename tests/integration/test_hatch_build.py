"""Kernels are compiled by a compiler that pip brings, or by another, and errors are told whole."""

from __future__ import annotations

import os
import runpy
import shutil
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tools import tool

ROOT = Path(__file__).parents[2]
SOURCES = "src/faasmoe/experts/kernels/c"
AARCH64 = 183  # in elf.h

needs_ziglang = pytest.mark.skipif(
    find_spec("ziglang") is None, reason="ziglang is missing: scripts/setup installs it"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Some of what is compiled, alone."""
    shutil.copy(ROOT / "hatch_build.py", tmp_path)
    shutil.copytree(ROOT / SOURCES, tmp_path / SOURCES)
    for source in (tmp_path / SOURCES).rglob("*.c"):
        if source.parent.name not in {"base", "engine"}:  # all take a minute of a slow core
            source.unlink()
    return tmp_path


def compiled(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    its = {name: value for name, value in os.environ.items() if name != "CC"} | environment
    command = [sys.executable, checkout / "hatch_build.py", *arguments]
    return subprocess.run(command, env=its, capture_output=True, text=True, timeout=240, check=False)


@needs_ziglang
def test_a_machine_needs_no_compiler(checkout: Path) -> None:
    done = compiled(checkout, "--only", "baseline", PATH="")
    assert (done.returncode, done.stderr) == (0, "")
    (made,) = (checkout / SOURCES).parent.glob("*.so")
    assert made.name == f"kernels-{os.uname().machine}-baseline.so"


@needs_ziglang
def test_there_are_kernels_for_each_instruction_set(tmp_path: Path) -> None:
    """In this folder, since the compiler keeps what it has made there."""
    done = compiled(ROOT, "--into", str(tmp_path), PATH="")
    assert (done.returncode, done.stderr) == (0, "")
    hatch_build = SimpleNamespace(**runpy.run_path(str(ROOT / "hatch_build.py")))
    names = {f"kernels-{os.uname().machine}-{each}.so" for each in hatch_build.SETS[os.uname().machine]}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_another_compiler_is_taken_if_it_is_named(checkout: Path) -> None:
    done = compiled(checkout, "--only", "baseline", "--into", str(checkout / "made"), CC=tool("gcc", "gcc"))
    assert (done.returncode, done.stderr) == (0, "")
    (file,) = (checkout / "made").iterdir()
    assert b"GCC: (" in file.read_bytes()


@needs_ziglang
def test_kernels_of_another_architecture_are_compiled_here(tmp_path: Path) -> None:
    done = compiled(ROOT, "--into", str(tmp_path), FAASMOE_ARCHITECTURE="aarch64")
    assert (done.returncode, done.stderr) == (0, "")
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(made) == {"kernels-aarch64-baseline.so", "kernels-aarch64-bf16.so"}
    assert {struct.unpack_from("<H", content, 18)[0] for content in made.values()} == {AARCH64}


@needs_ziglang
def test_an_error_of_a_source_is_told_as_the_compiler_tells_it(checkout: Path) -> None:
    (checkout / SOURCES / "base" / "wrong.c").write_text("int twice(int x)\n{\n    return x * two;\n}\n")
    done = compiled(checkout, "--only", "baseline")
    assert done.returncode == 1
    assert "wrong.c:3:16: error:" in done.stderr
    assert "return x * two;" in done.stderr
    assert "-mcpu=" in done.stderr, "the command"
    assert not list(checkout.rglob("*.so"))


@needs_ziglang
def test_a_function_that_no_process_need_have_is_refused(checkout: Path) -> None:
    (checkout / SOURCES / "base" / "wrong.c").write_text(
        "void cblas(void);\nvoid call(void);\nvoid call(void)\n{\n    cblas();\n}\n"
    )
    done = compiled(checkout, "--only", "baseline")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "the kernels for baseline call cblas; of other libraries' functions they may call "
    )
    assert not [file for file in (checkout / SOURCES).parent.iterdir() if file.is_file()]
