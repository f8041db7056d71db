from __future__ import annotations

import re
from pathlib import Path

import pytest

from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import known

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
        ("x86_64", f"{V4} avx512_bf16 avx512_vnni", ["avx512", "avx2", "baseline"]),
        ("x86_64", f"{V4} avx512_bf16", ["avx512", "avx2", "baseline"]),
        ("x86_64", f"{V4} avx512_bf16 avx512_vnni avx512vbmi", ["avx512bf16", "avx512", "avx2", "baseline"]),
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


def test_all_that_are_built_tell_the_digest_of_the_same_sources() -> None:
    digests = {each.digest() for each in known(Cpu.here()) if each.built}
    assert len(digests) == 1
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)


def test_kernels_that_are_no_shared_object_have_no_digest(tmp_path: Path) -> None:
    (tmp_path / "kernels-x86_64-baseline.so").write_bytes(b"no shared object")
    baseline = known(Cpu("x86_64", "", frozenset()), str(tmp_path))[-1]
    with pytest.raises(OSError, match=r"file too short|invalid ELF header"):
        baseline.digest()
