"""Kernels give what they give here where they find another C library (musl), and on another CPU (aarch64).

`replay.c` repeats calls of this process there. It needs Debian's packages musl, and for aarch64 qemu-user-static and
musl:arm64: installed, or their contents in the folder that the environment variable `FAASMOE_OTHER_MACHINES` names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from faasmoe.experts.arrays import address
from faasmoe.experts.dtypes import BFLOAT16, narrowed, widened
from faasmoe.experts.expert import ExpertForm, ExpertWeights, Gate
from faasmoe.experts.formats.fp8 import Fp8Matrix
from faasmoe.experts.formats.grouped_int4 import GroupedInt4Matrix
from faasmoe.experts.formats.int4 import Int4Matrix
from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.experts.formats.mxfp4 import Mxfp4Matrix
from faasmoe.experts.formats.nvfp4 import Nvfp4Matrix
from faasmoe.experts.fused import FusedExperts
from faasmoe.experts.kernels import instruction_set
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.library import instruction_sets
from faasmoe.model.dense.linear.linear_group import Layers
from tests.replayed import RESULT, Replayed
from tests.unit.experts.formats.gguf.drawn import FORMATS, drawn

FOLDER = "FAASMOE_OTHER_MACHINES"  # environment variable
ROOT = Path(__file__).parents[2]
MUSL = {"x86_64": "musl:amd64", "aarch64": "musl:arm64"}
AARCH64 = {"bf16": "max", "baseline": "cortex-a53"}  # by instruction set a CPU of qemu that has just that
TOGETHER = " together"
ROWS = 9  # more than tiles take at once
pytestmark = pytest.mark.skipif(
    find_spec("ziglang") is None, reason="ziglang is missing: scripts/setup installs it"
)


def of_others(path: str, package: str) -> Path:
    """A file of a Debian package: in the folder that `FOLDER` names, or installed. Skips the test if there is none."""
    for root in (os.environ.get(FOLDER), "/"):
        if root and (file := Path(root, path)).exists():
            return file
    pytest.skip(f"/{path} is missing; on Debian: sudo apt-get install {package}, or see CONTRIBUTING.md")


def replay(architecture: str, folder: Path) -> list[str | Path]:
    """The command that repeats calls, with the C library musl."""
    loader = of_others(f"lib/ld-musl-{architecture}.so.1", MUSL[architecture])
    program, cache = folder / "replay", str(ROOT / "build" / "zig")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-linux-musl", "-dynamic"]
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    flags = ["-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [*compiler, *flags, ROOT / "tests" / "replay.c", "-o", program], env=environment, check=True, timeout=200
    )
    return [loader, program]


def weights(outs: int) -> dict[str, Any]:
    """A random matrix in each format, with as many columns as fit in no whole steps."""
    random = np.random.default_rng(0)
    numbers = random.standard_normal((outs, 1056), np.float32)

    def integers(low: int, high: int, *shape: int) -> NDArray[np.uint8]:
        return random.integers(low, high, (outs, *shape), np.uint8)

    def scales(rows: int, columns: int) -> NDArray[np.float32]:
        return random.uniform(0.01, 0.1, (rows, columns)).astype(np.float32)

    return {
        "float32": numbers[:, :1040].copy(),
        "float16": numbers[:, :1040].astype(np.float16),
        "bfloat16": narrowed(numbers[:, :1040].copy()),
        "int8": Int8Matrix.nearest(numbers[:, :1040]),
        "int4": Int4Matrix.nearest(numbers),
        "grouped_int4": GroupedInt4Matrix(integers(0, 256, 528), scales(outs, 33), integers(0, 17, 33)),
        "mxfp4": Mxfp4Matrix.of(integers(0, 256, 33, 16), integers(110, 130, 33)),
        "nvfp4": Nvfp4Matrix.of(integers(0, 256, 264), integers(0, 0x78, 33), np.array(0.3, np.float32)),
        "fp8": Fp8Matrix.of(integers(0, 0x7F, 1040), scales(1, 9)),
        **{format.name: drawn(format, outs, 3, 0) for format in FORMATS},
    }


def rows_of(columns: int, dtype: Any) -> NDArray[Any]:
    rows = np.random.default_rng(1).standard_normal((ROWS, columns), np.float32)
    return rows if dtype == np.float32 else narrowed(rows)


def call_linear_rows(calls: Replayed) -> None:
    """All rows together, and each alone, by a matrix in each format."""
    for name, matrix in weights(13).items():
        outs, ins = matrix.shape
        x = calls.place(rows_of(ins, np.float32 if name in ("float32", "float16") else BFLOAT16))
        where = calls.matrix(matrix)
        alone = {f"{name}{TOGETHER}": x} | {f"{name} {row}": x[row : row + 1] for row in range(ROWS)}
        for result, rows in alone.items():
            y = calls.result(result, (len(rows), outs), x.dtype)
            calls.call("linear_rows", address(rows), *where, 0, y, len(rows), outs, ins)


def call_experts(calls: Replayed) -> None:
    """Two experts, for each function of C's library that gates call."""
    for activation in ("silu", "gelu", "gelu_tanh"):
        first, down = (narrowed(weights(size)["float32"][:, :width] / 8) for size, width in ((64, 96), (96, 32)))
        first, down = calls.place(first), calls.place(down)
        block = FusedExperts([ExpertWeights((first,), down)] * 2, ExpertForm(Gate("glu", activation)), "BF16")
        block._block.experts = address(calls.place(block._table))
        slots = [calls.place(np.arange(ROWS, dtype=np.int32) % count) for count in (ROWS, 2)]
        weight = calls.place(np.linspace(0.1, 1, ROWS, dtype=np.float32))
        x, y = calls.place(rows_of(96, BFLOAT16)), calls.result(activation, (ROWS, 96), np.float32)
        slot_addresses = map(address, (*slots, weight))
        calls.call("experts_forward", calls.struct(block._block), address(x), 0, *slot_addresses, ROWS, y)


def call_team(calls: Replayed) -> None:
    """Two threads, with the weights of a linear layer in int8."""
    matrix = Int8Matrix.nearest(np.random.default_rng(3).standard_normal((2000, 1040), np.float32))
    layers = Layers((matrix, None))
    table = layers._table.copy()
    table[0, :3] = calls.matrix(matrix)
    layers._group[0] = address(calls.place(table))
    x = calls.place(rows_of(matrix.shape[1], BFLOAT16))
    calls.call("team_start", 1)
    y = calls.result("team", (ROWS, matrix.shape[0]), BFLOAT16)
    calls.call("team_run", RESULT, address(calls.place(layers._group)), address(x), y, ROWS, 0)


def call_int4_convert(calls: Replayed) -> None:
    numbers = calls.place(np.random.default_rng(2).standard_normal((5, 1056), np.float32))
    codes, scales = calls.result("codes", (5, 528), np.uint8), calls.result("scales", (5, 70), np.uint8)
    calls.call("int4_convert", address(numbers), *numbers.shape, codes, scales)


@pytest.fixture(scope="module")
def calls() -> Iterator[Replayed]:
    made = Replayed()
    for each in (call_linear_rows, call_experts, call_team, call_int4_convert):
        each(made)
    yield made
    made.close()


def assert_rows_have_their_bits_in_any_company(results: dict[str, NDArray[Any]]) -> None:
    for name, together in results.items():
        if name.endswith(TOGETHER):
            alone = [results[f"{name.removesuffix(TOGETHER)} {row}"][0] for row in range(ROWS)]
            assert np.array_equal(alone, together), name


@pytest.mark.parametrize("name", instruction_sets())
def test_with_musl_results_have_the_same_bits(calls: Replayed, tmp_path: Path, name: str) -> None:
    (kernels,) = (Path(each.file) for each in instruction_set.known(Cpu.here()) if each.name == name)
    found, wanted = calls.elsewhere(replay(os.uname().machine, tmp_path), kernels, tmp_path), calls.here(name)
    for result in wanted:
        if "gelu" in result:  # erff and tanhf are theirs
            np.testing.assert_allclose(found[result], wanted[result], rtol=1e-2, atol=1e-2)
        else:
            assert np.array_equal(found[result], wanted[result]), result
    assert_rows_have_their_bits_in_any_company(found)


@pytest.fixture(scope="module")
def for_aarch64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the kernels."""
    folder = tmp_path_factory.mktemp("aarch64")
    command = [sys.executable, str(ROOT / "hatch_build.py"), "--into", str(folder)]
    subprocess.run(command, env=os.environ | {"FAASMOE_ARCHITECTURE": "aarch64"}, check=True, timeout=240)
    return folder


@pytest.mark.parametrize("name", AARCH64)
def test_on_aarch64_results_are_the_same_but_for_rounding(
    calls: Replayed, tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    emulator = of_others("usr/bin/qemu-aarch64-static", "qemu-user-static")
    command = [emulator, "-cpu", AARCH64[name], *replay("aarch64", tmp_path)]
    kernels = (
        request.getfixturevalue("for_aarch64") / f"kernels-aarch64-{name}.so"
    )  # compiled unless skipped before
    found, wanted = calls.elsewhere(command, kernels, tmp_path), calls.here("baseline")
    for result in ("codes", "scales"):
        assert np.array_equal(found.pop(result), wanted.pop(result))
    for result in wanted:
        ours, theirs = (widened(each[result]).astype(float) for each in (found, wanted))
        close = np.isclose(ours, theirs, rtol=2**-7, atol=2**-7 * np.abs(theirs).mean())
        assert close.all(), (result, ours[~close], theirs[~close])
    assert_rows_have_their_bits_in_any_company(found)
