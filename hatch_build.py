"""Compiles the kernels when the package is built: a shared object for each instruction set.

The compiler is clang as `ziglang` packs it, a build requirement from PyPI, or the command in the environment variable
CC. FAASMOE_ARCHITECTURE names another processor than this machine's: x86_64 or aarch64.

Nothing is linked but the kernels. What they call of C's library (`LIBC`) they find in the process that loads them, be
its library glibc or musl, so one shared object serves both. And linking takes no time, whereas `ziglang` would compile
a C library first, for ten seconds.

python hatch_build.py    compiles in place, for whoever changes the sources; --help lists what else it can do
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
KERNELS = ROOT / "src" / "faasmoe" / "experts" / "kernels"
SOURCES = KERNELS / "c"
FLAGS = ["-std=c11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno",
         "-Wall", "-Wextra", "-Werror"]  # fmt: skip
# By architecture and instruction set: what clang as ziglang has it calls the CPU, and flags of GCC and clang. GCC would
# call functions of its own library for atomic operations of aarch64, if it may.
SETS = {
    "x86_64": {
        "avx512bf16": (
            "x86_64_v4+avx512bf16+avx512vnni+avx512vbmi",
            ["-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni", "-mavx512vbmi"],
        ),
        "avx512": ("x86_64_v4", ["-march=x86-64-v4"]),
        "avx2": ("x86_64_v3", ["-march=x86-64-v3"]),
        "baseline": ("x86_64", ["-march=x86-64"]),
    },
    "aarch64": {
        "bf16": ("generic+bf16+i8mm+dotprod", ["-march=armv8.2-a+bf16+i8mm+dotprod", "-mno-outline-atomics"]),
        "baseline": ("generic", ["-march=armv8-a", "-mno-outline-atomics"]),
    },
}
# Functions of C's library and its mathematics that a Python process has, and that are called alike in glibc and musl.
LIBC = {"__errno_location", "__tls_get_addr", "aligned_alloc", "clock_gettime", "close", "erff", "exp", "fmax",
        "fmin", "free", "madvise", "memcmp", "memcpy", "memmove", "memset", "pthread_create", "pthread_detach",
        "pthread_key_create", "pthread_once", "pthread_setspecific", "pthread_sigmask", "recv", "recvmsg",
        "sched_yield", "sem_init", "sem_post", "sem_wait", "send", "sigfillset", "syscall", "tanhf"}  # fmt: skip
_DYNAMIC_SYMBOLS = 11  # a section's type, elf(5)


class Build:
    """The kernels for one architecture, compiled with `more` flags than `FLAGS`."""

    def __init__(self, architecture: str, more: Sequence[str] = ()) -> None:
        if architecture not in SETS:
            sys.exit(f"no kernels for {architecture}: FAASMOE_ARCHITECTURE must be one of {', '.join(SETS)}")
        self.architecture = architecture
        self._sets = SETS[architecture]
        self._more = list(more)

    @property
    def tag(self) -> str:
        """Of a wheel. The kernels are loaded by ctypes, so any Python will do."""
        return f"py3-none-manylinux_2_17_{self.architecture}.musllinux_1_1_{self.architecture}"

    def run(self, folder: Path, only: str | None = None) -> list[Path]:
        """Compile all instruction sets, or one, into `folder`. An error is told as the compiler tells it, and exits."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = {
                name: [pool.submit(self._compile, name, source, Path(scratch)) for source in sources()]
                for name in ([only] if only else self._sets)
            }
            try:
                return [self._link(name, [each.result() for each in objects[name]], folder) for name in objects]
            finally:
                pool.shutdown(cancel_futures=True)

    def _compile(self, instruction_set: str, source: Path, folder: Path) -> Path:
        file = folder / f"{instruction_set}-{source.stem}.o"
        its = [f'-DDIGEST="{digest()}"'] if source.stem == "digest" else []
        self._call(instruction_set, *FLAGS, "-I", SOURCES, *its, "-c", source, "-o", file)
        return file

    def _link(self, instruction_set: str, objects: list[Path], folder: Path) -> Path:
        """Put another file in place of one that is there, which a process may have mapped."""
        file = folder / f"kernels-{self.architecture}-{instruction_set}.so"
        new = file.with_suffix(f".{os.getpid()}")
        self._call(instruction_set, "-shared", "-nostdlib", *objects, "-o", new)
        if not self._more and (others := undefined(new.read_bytes()) - LIBC):
            new.unlink()
            sys.exit(f"the kernels for {instruction_set} call {', '.join(sorted(others))}; of other libraries' "
                     f"functions they may call {', '.join(sorted(LIBC))}")  # fmt: skip
        return new.replace(file)

    def _call(self, instruction_set: str, *arguments: str | Path) -> None:
        cpu, flags = self._sets[instruction_set]
        cache = str(ROOT / "build" / "zig")
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        compiler = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            f"{self.architecture}-linux-musl",
            f"-mcpu={cpu}",
        ]
        if command := os.environ.get("CC"):
            compiler = [*shlex.split(command), *flags]
        command = [*compiler, *map(str, arguments), *self._more]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stderr}\n{shlex.join(command)}\nended with status {done.returncode}")


def architecture() -> str:
    """The one to compile for."""
    return os.environ.get("FAASMOE_ARCHITECTURE") or platform.machine()


def sources() -> list[Path]:
    """What is compiled."""
    return sorted(SOURCES.rglob("*.c"))


def digest() -> str:
    """Of the sources, and of their flags in this file. The kernels tell the one that they were compiled from."""
    found = hashlib.sha256(Path(__file__).read_bytes())
    for file in [*sources(), *sorted(SOURCES.rglob("*.h"))]:
        found.update(str(file.relative_to(SOURCES)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]


def undefined(elf: bytes) -> set[str]:
    """The names that a shared object of 64 bits looks for elsewhere (elf(5))."""
    (start,), (size, count) = struct.unpack_from("<Q", elf, 40), struct.unpack_from("<HH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQI", elf, start + i * size) for i in range(count)]
    names = set()
    for _, kind, _, _, offset, length, strings in sections:
        for at in range(offset, offset + length, 24) if kind == _DYNAMIC_SYMBOLS else ():
            name, _, section = struct.unpack_from("<IHH", elf, at)
            if name and not section:
                begin = sections[strings][4] + name
                names.add(elf[begin : elf.index(b"\0", begin)].decode())
    return names


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script, or imported by a test
    pass
else:

    class KernelBuild(BuildHookInterface[Any]):
        """The hook that hatchling calls for a wheel."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile: beside the sources for an editable installation, else into the wheel."""
            build = Build(architecture())
            build_data["pure_python"] = False
            build_data["tag"] = build.tag
            if version == "editable":
                build.run(KERNELS)
                return
            files = build.run(ROOT / "build" / "kernels")
            build_data["force_include"] |= {str(file): f"faasmoe/experts/kernels/{file.name}" for file in files}


def main() -> None:
    """Compile without installing."""
    parser = argparse.ArgumentParser(
        description="Compile the kernels. Other options are flags for the compiler, such as -fsanitize=undefined.",
        allow_abbrev=False,
    )
    parser.add_argument("--into", metavar="FOLDER", type=Path, default=KERNELS, help="not beside the sources")
    parser.add_argument("--only", metavar="SET", choices=SETS.get(architecture()), help="this instruction set")
    options, flags = parser.parse_known_args()
    Build(architecture(), flags).run(options.into, options.only)


if __name__ == "__main__":
    main()
