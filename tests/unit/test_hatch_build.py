"""What hatch_build.py compiles, and that the kernels beside the sources are made from them."""

from __future__ import annotations

import _ctypes
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import known
from faasmoe.experts.kernels.library import TEXT, Library

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hatch_build() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "hatch_build.py")))


def test_kernels_are_those_of_the_sources(hatch_build: SimpleNamespace) -> None:
    digests = {
        each.name: Library(each.name).function("digest", result=TEXT)() for each in known(Cpu.here()) if each.runs
    }
    assert digests == dict.fromkeys(digests, hatch_build.digest().encode()), "run: python hatch_build.py"


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_all_sets_that_are_looked_for_are_compiled(hatch_build: SimpleNamespace, architecture: str) -> None:
    cpu = Cpu(architecture, "", frozenset())
    assert [each.name for each in known(cpu)] == list(hatch_build.SETS[architecture])


def test_kernels_call_nothing_that_a_process_may_lack(hatch_build: SimpleNamespace) -> None:
    for each in known(Cpu.here()):
        assert hatch_build.undefined(Path(each.file).read_bytes()) <= hatch_build.LIBC
    assert "memcpy" in hatch_build.undefined(Path(_ctypes.__file__).read_bytes())  # of one that does call


def test_every_file_is_told_in_its_first_line() -> None:
    for file in ROOT.joinpath("src/faasmoe/experts/kernels/c").rglob("*.[ch]"):
        assert re.match(r"/\* \w", file.read_text()), file


def test_a_wheel_is_for_both_libraries_of_c(hatch_build: SimpleNamespace) -> None:
    assert hatch_build.Build("aarch64").tag == "py3-none-manylinux_2_17_aarch64.musllinux_1_1_aarch64"


def test_another_architecture_is_refused_by_name(hatch_build: SimpleNamespace) -> None:
    with pytest.raises(
        SystemExit, match="no kernels for riscv64: FAASMOE_ARCHITECTURE must be one of x86_64, aarch"
    ):
        hatch_build.Build("riscv64")
