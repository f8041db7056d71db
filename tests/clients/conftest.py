"""A server for all clients, and an environment for each. Only `scripts/clients` runs these tests: they install much."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.model.checkpoint.source import resolve
from tests.integration.servers import Server, serve

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "build" / "clients"
PROGRAMS = Path(__file__).parent / "programs"
MODEL = "long"
CONTEXT = 100_000  # tokens: Claude Code begins with 33,000
_SECONDS = 280

collect_ignore_glob = [] if os.environ.get("FAASMOE_CLIENTS") else ["test_*.py"]


@pytest.fixture(scope="session")
def long_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model with a long context, in which responses end with their first sentence."""
    folder = tmp_path_factory.mktemp("models") / MODEL
    shutil.copytree(resolve(None).folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT}))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    generation = json.loads((folder / "generation_config.json").read_text())
    generation["eos_token_id"] = [generation["eos_token_id"], *(vocabulary[text] for text in (".", "!", "?", ";"))]
    (folder / "generation_config.json").write_text(json.dumps(generation))
    with serve(str(folder), "--max-model-len", str(CONTEXT)) as running:
        yield running


def python_program(name: str, server: Server, *packages: str) -> str:
    """What the program of this name prints, in an environment with these packages."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    installed = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"{name} cannot be installed: {installed.stderr.strip().splitlines()[-1:]}")
    return output([str(python), str(PROGRAMS / f"{name}.py"), server.url, MODEL], ENVIRONMENTS / name, {})


def npm(name: str, *packages: str) -> Path:
    """The folder of an environment with these packages of npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not there")
    folder = ENVIRONMENTS / name
    folder.mkdir(parents=True, exist_ok=True)
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", *packages],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"{name} cannot be installed: {installed.stderr.strip().splitlines()[-1:]}")
    (folder / "home").mkdir(exist_ok=True)
    (folder / "project").mkdir(exist_ok=True)
    return folder


def output(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a client prints; it has to end with status 0."""
    plain = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "HOME")}
    ran = subprocess.run(
        command,
        cwd=folder,
        env={**plain, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout
