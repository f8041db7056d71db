"""scripts/setup, with a pip that writes down what it is asked for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$(dirname "$0")/asked"
case "$*" in
  *"pip show"*) exit 1 ;;
  *--index-url*) exit {status} ;;
  -) echo "torch 1.2.3, a build without CUDA: 0.1 GB on disk" ;;
esac
"""


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
@pytest.mark.parametrize(("status", "said"), [(0, ""), (1, "cannot be reached: taking the torch that pip finds")])
def test_torch_comes_without_cuda_where_its_index_can_be_reached(tmp_path, status, said):
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/setup", tmp_path / "scripts/setup")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("python", "pip"):
        (tmp_path / ".venv/bin" / name).write_text(PIP.format(status=status))
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    done = subprocess.run([tmp_path / "scripts/setup"], capture_output=True, text=True, timeout=30, check=True)
    asked = (tmp_path / ".venv/bin/asked").read_text().splitlines()
    first, last = [line for line in asked if "pip install" in line]
    assert "--index-url https://download.pytorch.org/whl/cpu torch==" in first
    assert "--constraint constraints.txt --editable ." in last
    assert said in done.stderr
    assert "torch 1.2.3, a build without CUDA: 0.1 GB on disk" in done.stderr
