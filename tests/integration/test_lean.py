"""Imports are a process's own, so that each test here starts one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from faasmoe.model.source import resolve

PRELUDE = """
import json, sys
from pathlib import Path
from tempfile import mkdtemp
from faasmoe.model.lean import import_transformers
import_transformers()
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
    print(json.dumps(model(torch.arange(40)[None]).logits[0, -1].tolist()))
"""
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
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_loaded_without_the_compiler() -> None:
    assert said(PRELUDE + SERVES) == []


def test_a_model_is_looked_at_without_torch() -> None:
    assert said(LOOKS, str(resolve(None).folder)) == []


def test_transformers_computes_the_same_numbers() -> None:
    demo = str(resolve(None).folder)
    whole = said("import json, sys\n" + FORWARD, demo)
    assert said(PRELUDE + FORWARD, demo) == whole
    assert len(whole) > 1


def test_whoever_needs_the_compiler_after_all_gets_it() -> None:
    assert said(PRELUDE + COMPILES) == [2.0, 2.0]
