from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest

from faasmoe.errors import OptionError, UserError
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.library import (
    ADDRESS,
    BOOL,
    INT,
    LIBRARY,
    TEXT,
    InstructionSet,
    Library,
    instruction_sets,
)

HERE = instruction_sets(Cpu.here())
RUNNING = [each for each in HERE if each.runs]
V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


def running(architecture: str, flags: str, folder: Path) -> list[str]:
    cpu = Cpu(architecture, "", frozenset(flags.split()))
    for each in instruction_sets(cpu, str(folder)):
        Path(each.file).touch()
    return [each.name for each in instruction_sets(cpu, str(folder)) if each.runs]


@pytest.mark.parametrize(
    ("architecture", "flags", "names"),
    [
        ("x86_64", "", ["baseline"]),
        ("x86_64", V3, ["avx2", "baseline"]),
        ("x86_64", V3.replace("fma ", ""), ["baseline"]),
        ("x86_64", V4.replace("avx512vl", ""), ["avx2", "baseline"]),
        ("x86_64", V4, ["avx512", "avx2", "baseline"]),
        ("x86_64", f"{V4} avx512_bf16", ["avx512", "avx2", "baseline"]),
        ("x86_64", f"{V4} avx512_bf16 avx512_vnni", ["avx512bf16", "avx512", "avx2", "baseline"]),
        ("x86_64", "avx512f avx512bw avx512cd avx512dq avx512vl avx512_bf16 avx512_vnni", ["baseline"]),
        ("aarch64", "fp asimd", ["baseline"]),
        ("aarch64", "fp asimd asimddp bf16", ["baseline"]),
        ("aarch64", "fp asimd asimddp bf16 i8mm", ["bf16", "baseline"]),
        ("riscv64", "", []),
    ],
)
def test_a_cpu_runs_what_it_has_all_flags_of_the_best_first(
    tmp_path: Path, architecture: str, flags: str, names: list[str]
) -> None:
    assert running(architecture, flags, tmp_path) == names


def test_what_is_not_built_does_not_run_and_what_is_lacking_is_told(tmp_path: Path) -> None:
    cpu = Cpu("x86_64", "", frozenset(V3.split()) - {"fma"})
    (tmp_path / "kernels-x86_64-avx2.so").touch()
    found = {each.name: each for each in instruction_sets(cpu, str(tmp_path))}
    assert (found["avx2"].built, found["avx2"].lacking, found["avx2"].runs) == (True, ("fma",), False)
    assert (found["baseline"].built, found["baseline"].lacking, found["baseline"].runs) == (False, (), False)


def test_the_best_is_taken_unless_another_is_wanted() -> None:
    assert Library.chosen(HERE, None).instruction_set == RUNNING[0].name
    assert Library.chosen(HERE, "").instruction_set == RUNNING[0].name
    assert Library.chosen(HERE, "baseline").instruction_set == "baseline"


def test_a_path_names_kernels_that_lie_elsewhere(tmp_path: Path) -> None:
    file = shutil.copy(RUNNING[-1].file, tmp_path)
    assert Library.chosen([], str(file)).instruction_set == "baseline"


@pytest.mark.parametrize("wanted", ["avx1024", "avx2"])
def test_one_that_does_not_run_here_is_refused_with_those_that_do(wanted: str) -> None:
    there = [InstructionSet("avx2", "", True, ("fma",)), InstructionSet("baseline", "", True, ())]
    with pytest.raises(OptionError, match=rf"^FAASMOE_KERNELS={wanted}: must be one of baseline, which run here$"):
        Library.chosen(there, wanted)


def test_a_package_without_kernels_says_what_makes_them() -> None:
    with pytest.raises(UserError, match=r"no kernels for the architecture \w+; install the package again; in a "):
        Library.chosen([InstructionSet("baseline", "", False, ())], None)


def test_kernels_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    file = tmp_path / "kernels-x86_64-baseline.so"
    file.write_bytes(b"no shared object")
    with pytest.raises(UserError, match=rf"kernels cannot be loaded: {file}: .*python hatch_build.py"):
        Library("baseline", str(file))


def test_kernels_older_than_their_callers_are_named() -> None:
    with pytest.raises(UserError, match=r"kernels-.*\.so has no kernel of_tomorrow; .*python hatch_build.py"):
        LIBRARY.function("of_tomorrow")


@pytest.mark.parametrize("each", RUNNING, ids=lambda each: each.name)
def test_functions_of_every_set_can_be_called(each: InstructionSet) -> None:
    finite = Library(each.name, each.file).function("all_finite", ADDRESS, INT, result=BOOL)
    values = np.ones(37, np.float32)
    assert finite(values.ctypes.data, values.size) is True
    values[36] = np.inf
    assert finite(values.ctypes.data, values.size) is False
    assert finite(values.ctypes.data, 36) is True


def test_two_users_of_a_function_do_not_share_its_types() -> None:
    first = LIBRARY.function("digest", result=TEXT)
    LIBRARY.function("digest", result=ctypes.c_void_p)
    assert isinstance(first(), bytes)
