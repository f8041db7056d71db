"""Commands run no code that comes with a checkpoint, whatever is answered to transformers' question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import save_tiny

CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
Path({ran!r}).touch()
from transformers import PretrainedConfig, PreTrainedTokenizerFast
class Own(PretrainedConfig):
    model_type = "own"
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "hostile"
    save_tiny("qwen2_moe", folder)
    (folder / "code.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    file = folder / "config.json"
    own = {"model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoTokenizer": "code.OwnTokenizer"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["code.OwnTokenizer", None]}})
    )
    return folder


def test_it_is_not_run_and_the_reason_is_told(hostile: Path, tmp_path: Path) -> None:
    started = []
    for command in (["inspect"], ["generate", "--prompt", "x"], ["serve", "--port", "0"]):
        arguments = [sys.executable, "-m", "faasmoe.cli.main", command[0], str(hostile), *command[1:]]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(arguments, text=True, **pipes))
    for process in started:
        said = process.communicate("y\n" * 100, timeout=100)[1]
        assert process.returncode == 2, said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]  # serve logs its stages
        assert len(errors) == 1, said
        assert "architecture (model_type) own, and code that comes with a checkpoint is never run" in errors[0]
        assert "Traceback" not in said
    assert not (tmp_path / "ran").exists()
    assert not (hostile / "ran").exists()


def test_files_of_the_current_folder_are_not_taken_for_modules(tmp_path: Path) -> None:
    """Who serves the folder that a shell is in has a checkpoint's files there, such as `random.py`."""
    save_tiny("qwen2_moe", tmp_path)
    for name in ("random", "h2", "torch", "numba", "transformers", "msgspec", "encodings", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    command = [Path(sys.executable).with_name("faasmoe"), "generate", ".", "--prompt", "x", "--max-tokens", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
