from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest

from faasmoe.errors import OptionError, UserError
from faasmoe.experts.kernels import library
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.library import (
    ADDRESS,
    BOOL,
    INT,
    LIBRARY,
    TEXT,
    VARIABLE,
    InstructionSet,
    Library,
    instruction_sets,
    known,
)

V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


def running(architecture: str, flags: str, folder: Path) -> list[str]:
    cpu = Cpu(architecture, "", frozenset(flags.split()))
    for each in known(cpu, str(folder)):
        Path(each.file).touch()
    return [each.name for each in known(cpu, str(folder)) if each.runs]


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
    found = {each.name: each for each in known(cpu, str(tmp_path))}
    assert (found["avx2"].built, found["avx2"].lacking, found["avx2"].runs) == (True, ("fma",), False)
    assert (found["baseline"].built, found["baseline"].lacking, found["baseline"].runs) == (False, (), False)


def test_the_best_is_taken_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted, taken in {"": known_here()[0], "baseline": "baseline"}.items():
        monkeypatch.setenv(VARIABLE, wanted)
        assert Library.chosen().instruction_set == taken


def known_here() -> list[str]:
    return [each.name for each in known(Cpu.here()) if each.runs]


def test_a_path_names_kernels_that_lie_elsewhere_and_no_others_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = shutil.copy(known(Cpu.here())[-1].file, tmp_path)
    monkeypatch.setenv(VARIABLE, str(file))
    assert instruction_sets() == [str(file)]
    Library.chosen().function("all_finite")


@pytest.mark.parametrize("wanted", ["avx1024", "avx2"])
def test_one_that_does_not_run_here_is_refused_with_those_that_do(
    monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    there = [InstructionSet("avx2", "", True, ("fma",)), InstructionSet("baseline", "", True, ())]
    monkeypatch.setattr(library, "known", lambda _: there)
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(OptionError, match=rf"^FAASMOE_KERNELS={wanted}: must be one of baseline, which run here$"):
        Library.chosen()


def test_a_package_without_kernels_says_what_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(library, "known", lambda _: [InstructionSet("baseline", "", False, ())])
    with pytest.raises(UserError, match=r"no kernels for the architecture \w+; install the package again; in a "):
        Library.chosen()


def test_kernels_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    file = tmp_path / "kernels-x86_64-baseline.so"
    file.write_bytes(b"no shared object")
    with pytest.raises(UserError, match=rf"kernels cannot be loaded: {file}: .*python hatch_build.py"):
        Library(str(file))


def test_kernels_older_than_their_callers_are_named() -> None:
    with pytest.raises(UserError, match=r"\.so has no kernel of_tomorrow; .*python hatch_build.py"):
        LIBRARY.function("of_tomorrow")


@pytest.mark.parametrize("name", instruction_sets())
def test_functions_of_every_set_can_be_called(name: str) -> None:
    finite = Library(name).function("all_finite", ADDRESS, INT, result=BOOL)
    values = np.ones(37, np.float32)
    assert finite(values.ctypes.data, values.size) is True
    values[36] = np.inf
    assert finite(values.ctypes.data, values.size) is False
    assert finite(values.ctypes.data, 36) is True


def test_two_users_of_a_function_do_not_share_its_types() -> None:
    first = LIBRARY.function("digest", result=TEXT)
    LIBRARY.function("digest", result=ctypes.c_void_p)
    assert isinstance(first(), bytes)
