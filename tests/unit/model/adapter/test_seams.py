from __future__ import annotations

import ast
from collections import defaultdict
from importlib import import_module

import pytest

from faasmoe.model.adapter.seams import SEAMS, Seam
from tests.seams import BEGIN, DOCUMENT, END, ROOT, imported, modules, private_names, table, touched


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.where)
def test_every_seam_is_there_and_has_its_test(seam: Seam) -> None:
    module, _, name = seam.where.partition(":")
    assert hasattr(import_module(f"faasmoe.{module}"), name)
    file, _, test = seam.test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_list_says_all_that_the_sources_touch_and_nothing_else() -> None:
    trees = dict(modules())
    ours = private_names(list(trees.values()))
    listed = defaultdict[str, set[str]](set)
    for seam in SEAMS:
        listed[seam.where.partition(":")[0]] |= set(seam.touches)
    found = {name: names for name, tree in trees.items() if (names := touched(tree, ours))}
    assert found == {name: names for name, names in listed.items() if names}


def test_only_the_adapter_and_the_dense_part_import_internals() -> None:
    rooms = ("model.adapter.", "model.dense.")
    assert {
        name: imported(tree) for name, tree in modules() if not name.startswith(rooms) and imported(tree)
    } == {}


@pytest.mark.parametrize(
    ("source", "touches"),
    [
        ("from transformers.modeling_utils import x", {"transformers.modeling_utils.x"}),
        ("from transformers import _LazyModule", {"transformers._LazyModule"}),
        ("import torch._dynamo", {"torch._dynamo"}),
        ("def f():\n  import transformers.utils", {"transformers.utils"}),
        ("from torch.utils._pytree import tree_map", {"torch.utils._pytree.tree_map"}),
        ("import_module('transformers.cache_utils')", {"transformers.cache_utils"}),
        ("import_module(f'transformers.{name}')", {"transformers.*"}),
        ("model = kind._from_config(config)", {"._from_config"}),
        ("torch._C._set_mkldnn_enabled(False)", {"torch._C._set_mkldnn_enabled"}),
        ("torch.cuda.is_available = f", {"torch.cuda.is_available"}),
        ("hasattr(module, '_apply_gate')", {"._apply_gate"}),
        ("sys.modules.update({})", {"sys.modules"}),
        ("sys.meta_path.insert(0, hook)", {"sys.meta_path"}),
        ("setattr(torch, 'empty', f)", {"setattr"}),
        ("model.set_submodule('a', b)", {"set_submodule"}),
        ("module.__dict__['forward'] = f", {".__dict__"}),
        ("made = type('Name', (kind,), {})", {"type"}),
    ],
)
def test_what_touches_internals_is_seen(source: str, touches: set[str]) -> None:
    assert touched(ast.parse(source), set()) == touches


def test_public_names_and_private_ones_of_ours_are_not_listed() -> None:
    source = (
        '"""torch._dynamo"""\nfrom transformers import AutoConfig\nfrom torch import nn\nother._own\nself._x.y()'
    )
    assert touched(ast.parse(source), {"_own"}) == set()


def test_the_document_has_the_table() -> None:
    """`python -m tests.seams` writes it."""
    assert f"{BEGIN}\n{table()}\n{END}" in DOCUMENT.read_text()
