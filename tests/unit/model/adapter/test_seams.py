from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from faasmoe.model.adapter.seams import SEAMS, Seam

ROOT = Path(__file__).parents[4]
MODEL = ROOT / "src" / "faasmoe" / "model"
PRIVATE = ("transformers.", "torch._", "torch.utils._")


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.where)
def test_every_seam_is_there_and_has_its_test(seam: Seam) -> None:
    module, _, name = seam.where.partition(":")
    assert hasattr(import_module(f"faasmoe.model.{module}"), name)
    file, _, test = seam.test.partition("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()


def internals(source: str) -> Iterator[str]:
    """Modules inside transformers and torch that `source` imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                f"{node.module}.",
                *(f"{node.module}.{alias.name}" for alias in node.names if alias.name[0] == "_"),
            )
        elif isinstance(node, ast.Import):
            yield from (f"{alias.name}." for alias in node.names)


def touched(source: str) -> list[str]:
    return [
        name for name in internals(source) if name.startswith(PRIVATE) and name not in {"transformers.", "torch."}
    ]


def test_only_the_adapter_and_the_dense_part_import_internals() -> None:
    files = [
        file
        for file in (ROOT / "src").rglob("*.py")
        if not {MODEL / "adapter", MODEL / "dense"} & set(file.parents)
    ]
    assert {str(file): found for file in files if (found := touched(file.read_text()))} == {}


@pytest.mark.parametrize(
    "rogue",
    ["from transformers.modeling_utils import x", "import torch._dynamo", "def f():\n  import transformers.utils"],
)
def test_a_rogue_import_is_seen(rogue: str) -> None:
    assert touched(rogue)
    assert not touched("from transformers import AutoConfig\nimport torch\nfrom torch import nn")
