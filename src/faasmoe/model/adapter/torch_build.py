"""The installed build of torch, read from its files: the gateway never imports torch, which takes seconds."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

log = logging.getLogger(__name__)

CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own builds without libraries of GPUs
_LIBRARIES = {"cuda": "CUDA", "rocm": "ROCm", "hip": "ROCm", "xpu": "XPU"}  # by their names in torch/version.py
_GPUS = ("nvidia[0-9]*", "kfd", "dxg")  # devices of CUDA, of ROCm, and of both in Windows' subsystem for Linux


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """`version` is torch's own, such as 2.13.0+cu130; `library` such as CUDA, None in the build for CPUs."""

    version: str
    library: str | None


def installed() -> TorchBuild | None:
    """The build that `import torch` finds; None if torch is not installed, or its version file has no version."""
    spec = PathFinder.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        tree = ast.parse(Path(spec.submodule_search_locations[0], "version.py").read_text())
    except (OSError, SyntaxError):  # built in another way than PyTorch's own
        return None
    said = dict(_constants(tree))
    library = next((name for key, name in _LIBRARIES.items() if said.get(key)), None)
    return TorchBuild(str(said["__version__"]), library) if "__version__" in said else None


def warn() -> None:
    """Log one line if the build has libraries of GPUs and this machine has no GPU: then no other program wants them."""
    if line := complaint(installed(), Path("/dev")):
        log.warning("%s", line)


def complaint(build: TorchBuild | None, devices: Path) -> str | None:
    """The warning for a build on a machine with these `devices`. Sizes are of 2.13.0+cu130 beside 2.13.0+cpu."""
    if build is None or build.library is None or any(any(devices.glob(name)) for name in _GPUS):
        return None
    release = build.version.partition("+")[0]
    return (
        f"torch {build.version} has {build.library}, which FaaSMoE does not use, and this machine has no GPU: it takes "
        "0.4 GB more of memory, and 4 GB more on disk, than the build for CPUs; to have that instead: "
        f"pip install --index-url {CPU_INDEX} torch=={release}+cpu"
    )


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """Names of a module, with the constants they are given."""
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value))
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value))
            ):
                yield name, value
