"""Compiles the kernels when the package is built: a shared object for each instruction set.

The compiler is clang as `ziglang` packs it, a build requirement from PyPI, or the command in the environment variable
CC. FAASMOE_TARGET names another machine than this one: ARCHITECTURE-linux-LIBC, such as aarch64-linux-musl.

python hatch_build.py    compiles in place, for whoever changes the sources
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "src" / "faasmoe" / "experts" / "kernels"
FLAGS = ["-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno",
         "-Wall", "-Wextra", "-Werror"]  # fmt: skip
# By architecture and instruction set: what clang as ziglang has it calls the CPU, and what GCC and clang call it
SETS = {
    "x86_64": {
        "avx512bf16": ("x86_64_v4+avx512bf16+avx512vnni", ["-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni"]),
        "avx512": ("x86_64_v4", ["-march=x86-64-v4"]),
        "avx2": ("x86_64_v3", ["-march=x86-64-v3"]),
        "baseline": ("x86_64", ["-march=x86-64"]),
    },
    "aarch64": {
        "bf16": ("generic+bf16+i8mm+dotprod", ["-march=armv8.2-a+bf16+i8mm+dotprod"]),
        "baseline": ("generic", ["-march=armv8-a"]),
    },
}
LIBCS = {"gnu": (".2.17", "manylinux_2_17"), "musl": ("", "musllinux_1_2")}


@dataclass(frozen=True)
class Target:
    """A machine to compile for."""

    architecture: str
    libc: str

    @classmethod
    def chosen(cls) -> Target:
        """FAASMOE_TARGET, or this machine."""
        usual = f"{platform.machine()}-linux-{'gnu' if platform.libc_ver()[0] == 'glibc' else 'musl'}"
        architecture, _, libc = os.environ.get("FAASMOE_TARGET", usual).replace("-linux-", "-").partition("-")
        if architecture not in SETS or libc not in LIBCS:
            sys.exit(
                f"no kernels for {architecture}-linux-{libc}: must be one of x86_64, aarch64, and of gnu, musl"
            )
        return cls(architecture, libc)

    @property
    def tag(self) -> str:
        """Of a wheel: the library is loaded by ctypes, so any Python will do."""
        return f"py3-none-{LIBCS[self.libc][1]}_{self.architecture}"

    def compiler(self, instruction_set: str) -> list[str]:
        cpu, flags = SETS[self.architecture][instruction_set]
        if command := os.environ.get("CC"):
            return [*shlex.split(command), *flags]
        triple = f"{self.architecture}-linux-{self.libc}{LIBCS[self.libc][0]}"
        return [sys.executable, "-m", "ziglang", "cc", "-target", triple, f"-mcpu={cpu}"]

    def compile(self, instruction_set: str, more: list[str]) -> Path:
        """Raises `CalledProcessError`; the compiler has told why."""
        file = FOLDER / f"kernels-{self.architecture}-{instruction_set}.so"
        sources = [str(each) for each in sorted((FOLDER / "c").glob("*.c"))]
        command = [*self.compiler(instruction_set), *FLAGS, *more, *sources, "-o", str(file), "-lm", "-lpthread"]
        subprocess.run(command, check=True)
        return file


def compile_all(target: Target, more: list[str]) -> list[Path]:
    """`more`: flags for the compiler."""
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(os.cpu_count()) as pool:
        os.environ.update(ZIG_GLOBAL_CACHE_DIR=cache, ZIG_LOCAL_CACHE_DIR=cache)
        return list(pool.map(lambda name: target.compile(name, more), SETS[target.architecture]))


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script, without hatchling
    pass
else:

    class KernelBuild(BuildHookInterface[Any]):
        """The hook that hatchling calls."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile, and have the wheel hold what was compiled."""
            target = Target.chosen()
            files = compile_all(target, [])
            build_data["pure_python"] = False
            build_data["tag"] = target.tag
            build_data["artifacts"] += [f"/{file.relative_to(self.root)}" for file in files]


if __name__ == "__main__":
    compile_all(Target.chosen(), sys.argv[1:])
