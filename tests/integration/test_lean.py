"""Imports are a process's own, so that each test here starts one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from faasmoe.model.source import resolve

PRELUDE = """
import json, sys
from pathlib import Path
from tempfile import mkdtemp
read = []
def see(event, arguments):
    if event == "open" and "/transformers/models/" in str(arguments[0]) and str(arguments[0]).endswith(".py"):
        read.append(arguments[0])
sys.addaudithook(see)
from faasmoe.model.lean import import_transformers
import_transformers(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
"""
SERVES = """
from faasmoe.model.plan import make_plan
from faasmoe.model.source import resolve
from faasmoe.orchestrator.loaded import Loaded
source = resolve(None)
Loaded(make_plan(source, None, "float32"), Path(mkdtemp()))
print(json.dumps([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules]))
"""
FORWARD = """
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
with torch.no_grad():
    logits = model(torch.arange(40)[None]).logits[0, -1].tolist()
print(json.dumps(logits))
"""
SOURCES = "print(json.dumps([logits, len(read)]))"
COMPILES = """
import torch
from transformers.masking_utils import TransformGetItemToIndex
with TransformGetItemToIndex():
    print(json.dumps(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist()))
"""


LOOKS = """
import json, sys
import faasmoe.model.config_sizes, faasmoe.model.hub, faasmoe.model.weight_files
from faasmoe.model.source import resolve
resolve(sys.argv[1])
print(json.dumps([name for name in ("torch", "transformers") if name in sys.modules]))
"""


def said(code: str, *arguments: str) -> Any:
    """The last line that the code prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_loaded_without_the_compiler() -> None:
    assert said(PRELUDE + SERVES) == []


def test_a_model_is_looked_at_without_torch() -> None:
    assert said(LOOKS, str(resolve(None).folder)) == []


def test_transformers_computes_the_same_numbers_and_its_sources_are_read_once(tmp_path: Path) -> None:
    demo, exports = str(resolve(None).folder), str(tmp_path / "exports.json")
    whole = said("import json, sys\n" + FORWARD, demo)
    assert len(whole) > 1
    runs = [said(PRELUDE + FORWARD + SOURCES, demo, exports) for _ in range(2)]
    assert [logits for logits, _ in runs] == [whole, whole]
    first, second = (sources for _, sources in runs)
    assert first > 1000
    assert second < 100  # of the one model that is built


def test_whoever_needs_the_compiler_after_all_gets_it() -> None:
    assert said(PRELUDE + COMPILES) == [2.0, 2.0]
