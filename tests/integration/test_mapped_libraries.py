"""The libraries that processes of functions have mapped: numpy's, our kernels, and none of the dense part's."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from faasmoe.evaluation.meters.processes import Family
from tests.chaos.questions import MODEL
from tests.integration.servers import Server

DENSE_PART = re.compile(r"torch|numba|llvmlite|transformers|safetensors|tokenizers")


def files(pid: int) -> set[str]:
    """Files that a process has mapped. Source: proc(5), maps."""
    lines = (line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    return {fields[5] for fields in lines if len(fields) == 6 and fields[5].startswith("/")}


def test_zygote_and_instances_map_no_library_of_the_dense_part(server: Server) -> None:
    asked = {"model": MODEL, "prompt": "It was", "max_tokens": 4}
    httpx.post(f"{server.url}/v1/completions", json=asked, timeout=60).raise_for_status()
    family = Family(server.process.pid, "gateway").look()
    for role in ("zygote", "instances"):
        assert family[role]
        for process in family[role]:
            mapped = files(process.pid)
            libraries = {name for name in mapped if ".so" in Path(name).name}
            assert any("kernels-" in name for name in libraries)
            assert {name for name in libraries if DENSE_PART.search(name)} == set()
    holding = [
        process.pid
        for process in family["instances"]
        if any(".safetensors" in name for name in files(process.pid))
    ]
    assert holding  # functions were called, and have their weights from the checkpoint
    assert any(DENSE_PART.search(name) for process in family["orchestrator"] for name in files(process.pid))
