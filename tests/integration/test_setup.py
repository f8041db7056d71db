"""scripts/setup, with a pip that writes down what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = "src/faasmoe/experts/kernels/c"
PIP = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$(dirname "$0")/asked"
case "$*" in
  *"pip show"*) exit 1 ;;
  *--index-url*) exit {status} ;;
  "- "*pyproject.toml) echo ziglang ;;
  -) echo "torch 1.2.3, a build without CUDA: 0.1 GB on disk" ;;
esac
"""


PYTHON = """#!/usr/bin/env bash
case "$*" in
  *"import venv"*) exit 1 ;;
  *print*) echo python3.12-venv ;;
esac
"""


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script, in a checkout of nothing else but what it installs from."""
    for name in ("scripts/setup", "pyproject.toml", "constraints.txt", "hatch_build.py", KERNELS):
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
    command, its = [folder / "scripts/setup"], {**os.environ, **environment}
    return subprocess.run(command, env=its, capture_output=True, text=True, timeout=30, check=False)


def program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
@pytest.mark.parametrize(("status", "said"), [(0, ""), (1, "cannot be reached: taking the torch that pip finds")])
def test_torch_comes_without_cuda_where_its_index_can_be_reached(tmp_path, status, said):
    for name in ("python", "pip"):
        program(tmp_path / ".venv/bin" / name, PIP.format(status=status))
    done = run(tmp_path)
    assert done.returncode == 0
    asked = (tmp_path / ".venv/bin/asked").read_text().splitlines()
    *first, last = [line for line in asked if "pip install" in line]
    assert len(first) == 2
    assert any("--index-url https://download.pytorch.org/whl/cpu torch==" in each for each in first)
    assert any(each.endswith("--constraint constraints.txt ziglang") for each in first)
    assert "--constraint constraints.txt --no-build-isolation --editable ." in last
    assert said in done.stderr
    assert "torch 1.2.3, a build without CUDA: 0.1 GB on disk" in done.stderr


@pytest.mark.parametrize(
    "changed", ["pyproject.toml", "constraints.txt", "hatch_build.py", f"{KERNELS}/base/kernels.h"]
)
def test_what_is_installed_is_installed_again_only_when_it_changes(tmp_path, changed):
    for name in ("python", "pip"):
        program(tmp_path / ".venv/bin" / name, PIP.format(status=0))
    asked = tmp_path / ".venv/bin/asked"

    def asks() -> bool:
        asked.unlink(missing_ok=True)
        assert run(tmp_path).returncode == 0
        return asked.exists()

    assert asks()
    assert asks(), "no kernels have been compiled"
    (tmp_path / KERNELS).with_name(f"kernels-{os.uname().machine}-baseline.so").touch()
    assert not asks()
    with (tmp_path / changed).open("a") as file:
        file.write("\n")
    assert asks()
    assert not asks()


def test_who_may_not_install_packages_is_told_which_one_is_missing(tmp_path):
    program(tmp_path / "bin/id", "#!/bin/sh\necho 1000\n")
    program(tmp_path / "bin/python3.12", PYTHON)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = run(tmp_path, PATH=path, PYTHON="python3.12")
    assert done.returncode == 1
    assert "python3.12 lacks the venv module; on Debian: sudo apt-get install python3.12-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()
