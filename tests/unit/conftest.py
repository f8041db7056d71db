"""Unit tests can open no socket and start no process."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from faasmoe.evaluation import torch_memory
from faasmoe.model.adapter import torch_build
from faasmoe.model.adapter.torch_build import TorchBuild


@pytest.fixture(autouse=True)
def no_infrastructure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a unit test opens no socket and starts no process")

    for method in ("connect", "bind", "listen"):
        monkeypatch.setattr(socket.socket, method, refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "fork", refuse)


@pytest.fixture(autouse=True)
def build_for_cpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What another build of torch takes is measured by a process, and warned of, so here it is the one for CPUs."""
    for module in (torch_build, torch_memory):
        monkeypatch.setattr(module, "installed", lambda: TorchBuild("2.13.0+cpu", None))
    torch_memory.beyond_cpu_build.cache_clear()
    yield
    torch_memory.beyond_cpu_build.cache_clear()
