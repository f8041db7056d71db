"""A build of torch with libraries that nobody uses is told of, without importing it."""

from __future__ import annotations

import logging

import pytest
import torch

from faasmoe.model.adapter import torch_build
from faasmoe.model.adapter.torch_build import TorchBuild, complaint, installed

VERSION = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.13.0+cu130'
debug = False
cuda: Optional[str] = {cuda}
git_version = 'cf30153c4c131c8164ee7798e5022d810682e2cb'
hip: Optional[str] = {hip}
rocm: Optional[str] = None
xpu: Optional[str] = None
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of a package torch that comes before the real one."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise AssertionError('torch is not to be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_installed_build_is_the_one_that_torch_says():
    found = installed()
    assert found is not None
    assert found.version == torch.__version__
    assert (found.library == "CUDA") == (torch.version.cuda is not None)


@pytest.mark.parametrize(
    ("cuda", "hip", "library"), [("'13.0'", "None", "CUDA"), ("None", "'7.1'", "ROCm"), ("None", "None", None)]
)
def test_its_libraries_are_known(packages, cuda, hip, library):
    (packages / "torch/version.py").write_text(VERSION.format(cuda=cuda, hip=hip))
    assert installed() == TorchBuild("2.13.0+cu130", library)


@pytest.mark.parametrize("text", [None, "", "def"])
def test_a_build_that_does_not_say_is_left_alone(packages, text):
    if text is not None:
        (packages / "torch/version.py").write_text(text)
    assert installed() is None
    assert complaint(None, packages) is None


@pytest.mark.parametrize(
    ("library", "device", "told"),
    [
        ("CUDA", None, True),
        ("CUDA", "nvidia3", False),
        ("CUDA", "dxg", False),
        ("ROCm", "kfd", False),
        (None, None, False),
    ],
)
def test_it_is_told_of_where_no_gpu_is(tmp_path, library, device, told):
    if device:
        (tmp_path / device).touch()
    line = complaint(TorchBuild("2.13.0+cu130", library), tmp_path)
    assert (line is not None) == told
    if line:
        assert line.startswith("torch 2.13.0+cu130 has CUDA, which FaaSMoE does not use")
        assert "0.4 GB more of memory" in line
        assert line.endswith("pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu")
        assert "\n" not in line


def test_the_warning_is_one_line_of_the_log(monkeypatch, caplog):
    monkeypatch.setattr(torch_build, "_GPUS", ())
    monkeypatch.setattr(torch_build, "installed", lambda: TorchBuild("2.13.0+cu130", "CUDA"))
    torch_build.warn()
    assert [(record.levelno, record.args[0][:18]) for record in caplog.records] == [
        (logging.WARNING, "torch 2.13.0+cu130")
    ]
