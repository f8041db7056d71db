"""Imports are a process's own, so that others are started here."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from faasmoe.model.checkpoint.source import resolve

PRELUDE = """
import json, sys
from pathlib import Path
from tempfile import mkdtemp
read = []
def see(event, arguments):
    if event == "open" and "/transformers/models/" in str(arguments[0]) and str(arguments[0]).endswith(".py"):
        read.append(arguments[0])
sys.addaudithook(see)
from faasmoe.model.adapter.light_import import import_transformers
import_transformers(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
"""
SERVES = """
import torch
from faasmoe.model.dense.attention import Span
from faasmoe.model.dense.replay.replayer import BEFORE
from faasmoe.model.plan import make_plan
from faasmoe.model.checkpoint.source import resolve
from faasmoe.orchestrator.loaded_model import LoadedModel
source = resolve(None)
model = LoadedModel(make_plan(source, None, "float32"), Path(mkdtemp())).model
model.start(lambda layer, hidden, *_: torch.zeros_like(hidden), 1)
state = model.state_spec.allocate()
state.reserve(BEFORE + 3)
for position in range(BEFORE + 3):  # the last are recorded, compared, and run from a list
    model.forward([0], [position], [Span(state, 1)], [0])
assert model._replayer._programs[1].checked
print(json.dumps([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules]))
"""
REHEARSES = """
import json, sys
from pathlib import Path
from faasmoe.model.adapter.light_import import import_transformers
import_transformers()
import torch
from faasmoe.model.dense.rehearsal import rehearse
from faasmoe.model.plan import describe
architecture, _ = describe(Path(sys.argv[1]))
print(json.dumps(len(rehearse(architecture, torch.float32).layers)))
print(json.dumps([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules]))
"""
FORWARD = """
import torch
torch.set_num_threads(1)  # sums in one order
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
with torch.no_grad():
    logits = model(torch.arange(40)[None]).logits[0, -1].tolist()
print(json.dumps(logits))
"""
SOURCES = """
print(json.dumps(len(read)))
"""
COMPILES = """
import torch
from transformers.masking_utils import TransformGetItemToIndex
with TransformGetItemToIndex():
    print(json.dumps(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist()))
"""


LOOKS = """
import json, sys
import faasmoe.model.config.sizes, faasmoe.model.checkpoint.hub, faasmoe.model.checkpoint.weight_files
from faasmoe.model.checkpoint.source import resolve
resolve(sys.argv[1])
print(json.dumps([name for name in ("torch", "transformers") if name in sys.modules]))
"""


FORKS = """
import json, sys
from importlib import import_module
import faasmoe.platforms.local.instance.zygote
from faasmoe.experts import PRELOAD
for name in PRELOAD:
    import_module(name).warm_up()
names = ("asyncio", "psutil", "torch", "transformers", "numba", "llvmlite", "pydantic", "sqlalchemy", "rich")
print(json.dumps([name for name in names if name in sys.modules]))
"""


def said(code: str, *arguments: str) -> list[Any]:
    """What a process prints that runs `code` on the demo model, by line."""
    command = [sys.executable, "-c", code, str(resolve(None).folder), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file in which processes leave for the next one what transformers exports."""
    return str(tmp_path_factory.mktemp("exports") / "exports.json")


@pytest.fixture(scope="module")
def lean(exports: str) -> list[Any]:
    """The first process: what it has imported for a model, a model's numbers, sources read, and what it compiles."""
    return said(PRELUDE + SERVES + FORWARD + SOURCES + COMPILES, exports)


def test_a_model_is_looked_at_without_torch() -> None:
    assert said(LOOKS) == [[]]


def test_a_zygote_holds_nothing_that_no_instance_needs() -> None:
    """Functions need numpy and their kernels: torch would be 130 MB of every pool, asyncio alone 5."""
    assert said(FORKS) == [[]]


def test_a_model_is_loaded_without_the_compiler(lean: list[Any]) -> None:
    assert lean[0] == []


def test_a_model_is_rehearsed_without_the_compiler() -> None:
    layers, imported = said(REHEARSES)
    assert layers == 6
    assert imported == []


def test_transformers_computes_the_same_numbers_and_its_sources_are_read_once(
    lean: list[Any], exports: str
) -> None:
    (whole,) = said("import json, sys\n" + FORWARD)
    assert len(whole) > 1
    logits, sources = said(PRELUDE + FORWARD + SOURCES, exports)
    assert lean[1] == logits == whole
    assert lean[2] > 1000
    assert sources < 100  # of the one model that is built


def test_whoever_needs_the_compiler_after_all_gets_it(lean: list[Any]) -> None:
    assert lean[3] == [2.0, 2.0]
