from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest

from faasmoe.errors import OptionError, UserError
from faasmoe.experts.kernels import instruction_set
from faasmoe.experts.kernels.choice import VARIABLE
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import InstructionSet, known
from faasmoe.experts.kernels.library import ADDRESS, BOOL, INT, LIBRARY, TEXT, Library, instruction_sets


def test_the_best_is_taken_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    best = known_here()[0]
    for wanted, taken in {"": best, "baseline": "baseline", "baseline,onednn=64": "baseline"}.items():
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
    monkeypatch.setattr(instruction_set, "known", lambda _: there)
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(OptionError, match=rf"^FAASMOE_KERNELS={wanted}: must be one of baseline, which run here$"):
        Library.chosen()


def test_a_package_without_kernels_says_what_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(instruction_set, "known", lambda _: [InstructionSet("baseline", "", False, ())])
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
