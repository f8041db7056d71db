"""Code that comes with a checkpoint is never run: no call of transformers may be told otherwise, or ask."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import faasmoe
from faasmoe.errors import CheckpointError
from faasmoe.model.architecture import read_config
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.text.tokenizer import Tokenizer

SOURCE = Path(faasmoe.__file__).parent
NAMES = {"from_pretrained", "from_config", "_from_config"}
WITHOUT = {  # calls that take no such argument, and why they run no code of a checkpoint's
    (
        "model/config/generation.py",
        "transformers.GenerationConfig.from_pretrained",
    ): "reads one JSON file into plain attributes",
}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NAMES:
                yield str(file.relative_to(SOURCE)), node


def distrusts(call: ast.Call) -> bool:
    given = {keyword.arg: keyword.value for keyword in call.keywords}.get("trust_remote_code")
    return isinstance(given, ast.Constant) and given.value is False


def test_every_call_says_that_code_is_not_trusted() -> None:
    found = list(calls())
    assert len(found) >= 5
    trusting = {(file, ast.unparse(call.func)) for file, call in found if not distrusts(call)}
    assert trusting == set(WITHOUT)


def test_calls_are_not_hidden_from_this_test() -> None:
    """`getattr(x, "from_pretrained")`, and functions that are passed on without a call."""
    for file in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(file.read_text())
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Constant) and node.value in NAMES), file
            assert not (isinstance(node, ast.Attribute) and node.attr in NAMES and id(node) not in called), file


@pytest.mark.parametrize("known", [True, False])
def test_code_of_a_tokenizer_is_neither_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    shutil.copytree(resolve(None).folder, folder := tmp_path / "model")
    ran = tmp_path / "ran"
    (folder / "code.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Own: pass\n")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": ["code.Own", "code.Own"]}}
    file.write_text(json.dumps(settings if known else settings | {"tokenizer_class": "Own"}))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    with suppress(CheckpointError):
        Tokenizer.load(folder, read_config(folder))
    assert not asked
    assert not ran.exists()


def test_nothing_says_that_code_is_trusted() -> None:
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg in {
                "trust_remote_code",
                "allow_all_kernels",
                "use_kernels",
            }:
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, file
