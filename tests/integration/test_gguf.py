"""A GGUF file as the command gets it: metadata are read by a process, functions map their experts from the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gguf import GGMLQuantizationType as Type

from tests.gguf_files import save_model, write_gguf


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FAASMOE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "faasmoe.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_a_file_is_inspected_and_generates(tmp_path: Path) -> None:
    file = tmp_path / "Tiny-Q8_0.gguf"
    write_gguf(
        save_model("qwen3_moe", tmp_path / "saved"), file, lambda name: Type.F32 if "inp" in name else Type.Q8_0
    )
    shown = run(tmp_path, "inspect", str(file), "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["model"] == "Tiny-Q8_0"
    said = run(tmp_path, "generate", str(file), "--prompt", "hello", "--max-tokens", "3", "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["tokens"] == 3
    assert len(list((tmp_path / "cache" / "gguf").iterdir())) == 1  # made once


def test_what_is_in_the_way_of_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF\x01\0\0\0")
    said = run(tmp_path, "inspect", str(tmp_path / "a.gguf"))
    assert said.returncode == 2
    assert (
        said.stderr.strip()
        == f"error: {tmp_path}/a.gguf is GGUF of version 1: versions 2 and 3 are read, little-endian"
    )
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []
