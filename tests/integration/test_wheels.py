"""Wheels: what is in them, and that the function alone needs numpy and nothing else."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tarfile
import venv
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import numpy
import pytest

ROOT = Path(__file__).parents[2]
HERE = os.uname().machine

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("hatchling", "ziglang")),
    reason="hatchling or ziglang is missing: scripts/setup installs them",
)


@pytest.fixture(scope="module")
def wheels() -> SimpleNamespace:
    """The script."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "wheels")))


@pytest.fixture(scope="module")
def built(wheels: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheels of the function alone, by architecture."""
    folder = tmp_path_factory.mktemp("wheels")
    return {each: wheels.build("faasmoe_function", each, folder, sys.executable) for each in wheels.MACHINES}


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_function_alone_is_small_and_for_its_architecture(
    wheels: SimpleNamespace, built: dict[str, Path], architecture: str
) -> None:
    assert list(wheels.faults(built[architecture], architecture)) == []


def test_the_source_distribution_has_what_kernels_are_compiled_from(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True, timeout=120)
    (file,) = tmp_path.iterdir()
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(each.relative_to(ROOT)) for each in (ROOT / "src/faasmoe/experts/kernels/c").rglob("*.[ch]")}
    assert {"hatch_build.py", "pyproject.toml", "src/faasmoe/__init__.py", *sources} <= names
    assert not [name for name in names if name.endswith(".so") or name.startswith(("build", "function", "tests"))]


def test_what_is_wrong_with_a_wheel_is_found(
    wheels: SimpleNamespace, built: dict[str, Path], tmp_path: Path
) -> None:
    wrong = tmp_path / "faasmoe_function-1-py3-none-any.whl"
    with ZipFile(built["aarch64"]) as given, ZipFile(wrong, "w") as made:
        for name in given.namelist():
            content = given.read(name)
            if name.endswith("/METADATA"):
                content = content.replace(b"Requires-Dist: numpy", b"Requires-Dist: torch")
            made.writestr(name.replace("aarch64-bf16", "x86_64-avx2"), content)
        made.writestr("faasmoe/api/app.py", "")
        made.writestr("faasmoe/experts/kernels/c/base/finite.c", "")
    said = "\n".join(wheels.faults(wrong, "x86_64"))
    for part in (
        "its tag is not py3-none-manylinux_2_17_x86_64",
        "it has kernels-aarch64-baseline.so, kernels-x86_64-avx2.so instead of",
        "kernels-x86_64-avx2.so is for another architecture",
        "it has sources: faasmoe/experts/kernels/c/base/finite.c",
        "it has faasmoe/api/app.py",
        "it requires torch",
    ):
        assert part in said


def test_an_empty_environment_with_numpy_runs_the_function(built: dict[str, Path], tmp_path: Path) -> None:
    if "import torch" in (ROOT / "src/faasmoe/experts/handler.py").read_text():
        pytest.skip("faasmoe.experts.handler imports torch")
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (packages,) = (tmp_path / "venv/lib").glob("python3*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", packages]
    subprocess.run([*install, built[HERE]], check=True, timeout=60)
    for name in ("numpy", "numpy.libs"):
        (packages / name).symlink_to(Path(numpy.__file__).parents[1] / name)
    code = "import sys, faasmoe.experts.handler, faasmoe; print(faasmoe.__file__, 'torch' in sys.modules)"
    ran = subprocess.run(
        [tmp_path / "venv/bin/python", "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout, ran.stderr) == (f"{packages}/faasmoe/__init__.py False\n", "")
