"""A quantised copy of a checkpoint's large matrices, which is made once and mapped by every process that uses it.

It is kept in the user's cache, in a folder named after the checkpoint and its state: a safetensors file for the dense
part's linear layers, one for its head if that has a format of its own, and one for each layer's experts. Where
everything lies in these files follows from the checkpoint's shapes, so it is known before they are written
(`model.weights.quantised_file`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from torch import nn

from faasmoe.errors import OptionError, brief
from faasmoe.experts.artifact import ExpertLocations
from faasmoe.experts.file_state import FileState
from faasmoe.experts.formats.base import MatrixLocation, WeightFormat
from faasmoe.experts.formats.registry import DENSE, by_name
from faasmoe.model.architecture import Architecture, ExpertsModule
from faasmoe.model.checkpoint.index import Checkpoint
from faasmoe.model.weights import quantised_cache
from faasmoe.model.weights.layout import Layout, locate_experts
from faasmoe.model.weights.quantised_file import Advance, QuantisedFile, SourceMatrix
from faasmoe.util.folders.user_cache import CACHE, user_cache
from faasmoe.util.machine import cores

log = logging.getLogger(__name__)

_FORMAT = 3  # of the copy; another one makes another copy
_REPORT_SECONDS = 5.0  # between log lines


@dataclass(frozen=True, kw_only=True)
class QuantisedCopy:
    """The whole copy, which need not have been made yet."""

    format: WeightFormat
    folder: Path
    sources: tuple[quantised_cache.State, ...]  # the checkpoint's files
    files: tuple[QuantisedFile, ...]
    linears: dict[str, MatrixLocation]  # modules of the dense part
    experts: dict[str, tuple[ExpertLocations, ...]]  # experts modules to their experts, with matrices [out, in]

    @property
    def nbytes(self) -> int:
        """Size of all files."""
        return sum(file.nbytes for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes of files that have to be written."""
        return sum(file.nbytes for file in self.files if not file.there)

    def make(self, advance: Advance | None = None) -> None:
        """Write the files that are missing. One process at a time does, others wait for it.

        Copies of checkpoints that are no longer there go first.

        `advance` is called with progress; without it progress is logged. Raises `OptionError` if there is no room for
        the files, `CheckpointError` if the checkpoint holds a weight that is not finite.
        """
        if not self.missing:
            return
        try:
            quantised_cache.sweep(self.folder.parent)
            quantised_cache.create(self.folder, self.sources, [file.path.name for file in self.files])
            with quantised_cache.use(self.folder), _locked(self.folder):
                self._write(advance)
        except OSError as error:
            raise OptionError(
                f"--quantize {self.format.name}: weights cannot be written to {self.folder}: {brief(error)}; "
                f"the environment variable {CACHE} names another folder for them"
            ) from error

    def states(self) -> dict[Path, FileState]:
        """All files, once they are made, as they are now. Raises `OptionError` if one cannot be read."""
        try:
            return {file.path: FileState.read(file.path) for file in self.files}
        except OSError as error:
            raise OptionError(
                f"--quantize {self.format.name}: {self.format.name} weights cannot be read: {error.strerror}"
            ) from error

    def use(self) -> IO[bytes]:
        """A stream that keeps the copy, which must have been made, from being removed while it is open."""
        return quantised_cache.use(self.folder)

    def _write(self, advance: Advance | None) -> None:
        files = [file for file in self.files if not file.there]  # another process may have written some meanwhile
        needed, free = sum(file.nbytes for file in files), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OptionError(
                f"--quantize {self.format.name}: {self.format.name} weights take {needed / 1e9:.2f} GB, but "
                f"{self.folder} has {free / 1e9:.2f} GB left; "
                f"the environment variable {CACHE} names another folder for them"
            )
        told = advance or _logged(self.format.name, self.folder, needed)
        with ThreadPoolExecutor(cores()) as pool:
            for _ in pool.map(lambda file: file.write(told), files):
                pass


def plan_copy(
    name: str, format: WeightFormat, architecture: Architecture, layout: Layout, checkpoint: Checkpoint
) -> QuantisedCopy:
    """Plan the copy in `format` of a checkpoint that is served as `name`.

    It has all routed experts, and the dense part's linear layers.

    Raises `OptionError` if the checkpoint is quantised itself, or the experts have sizes that the kernel does not take.
    """
    if others := sorted({checkpoint.location(tensor).format for tensor in checkpoint} - {DENSE.name}):
        raise OptionError(
            f"--quantize {format.name}: {checkpoint.folder} holds weights in the format {', '.join(others)} already; "
            "serve it without --quantize"
        )
    sources = tuple(map(quantised_cache.state, sorted({file.resolve() for file in checkpoint.files})))
    folder = user_cache() / format.name / f"{name.replace('/', '--')}-{_identity(sources)}"
    files: list[QuantisedFile] = []
    linears: dict[str, MatrixLocation] = {}
    for file, members in _dense_files(architecture, layout, checkpoint, folder, format):
        files.append(file)
        linears.update(zip(members, file.locations(), strict=True))
    experts = {}
    for module in architecture.experts:
        plain = locate_experts(module, layout.experts[module.name], checkpoint)
        _check_sizes(architecture.name, plain[0], module, format)
        matrices = list(_matrices(module, plain))
        file = QuantisedFile(folder / f"experts-{module.layer:03}.safetensors", format, matrices)
        files.append(file)
        experts[module.name] = tuple(_moved(plain, file))
    return QuantisedCopy(
        format=format,
        folder=folder,
        sources=sources,
        files=tuple(files),
        linears=linears,
        experts=experts,
    )


def _dense_files(
    architecture: Architecture, layout: Layout, checkpoint: Checkpoint, folder: Path, format: WeightFormat
) -> Iterator[tuple[QuantisedFile, list[str]]]:
    """The dense part's files, each with the linear layers that it holds: the head may be in a format of its own."""
    model = architecture.meta_model
    formats = {"dense": format, "head": by_name(format.head) if format.head else format}
    parts: dict[str, dict[str, SourceMatrix]] = {part: {} for part in formats}
    for name, tensor in _linears(architecture, layout).items():
        layer = model.get_submodule(name)
        part = "head" if format.head and layer is model.get_output_embeddings() else "dense"
        if layer.in_features % formats[part].multiple == 0:
            parts[part][name] = SourceMatrix(f"{name}.weight", checkpoint.plain(tensor))
    for part, its in parts.items():
        if its:
            yield QuantisedFile(folder / f"{part}.safetensors", formats[part], list(its.values())), list(its)


def convertible(architecture: Architecture) -> dict[str, nn.Linear]:
    """Linear layers of the dense part whose weights may be converted, by name.

    Routers and gates of shared experts stay as they are: layers with no more outputs than there are experts.
    """
    least = max(module.num_experts for module in architecture.experts)
    return {
        name: layer
        for name, layer in architecture.meta_model.named_modules()
        if type(layer) is nn.Linear and layer.out_features > least  # a subclass may compute something else
    }


def _linears(architecture: Architecture, layout: Layout) -> dict[str, str]:
    """Layers that are `convertible`, and the checkpoint's tensor of each one's weight."""
    stored = {target: name for name, target in layout.dense.items() if target}
    tied = getattr(architecture.meta_model, "all_tied_weights_keys", {})
    found = {}
    for name in convertible(architecture):
        weight = f"{name}.weight"
        if source := stored.get(weight) or stored.get(tied.get(weight, "")):
            found[name] = source
    return found


def _matrices(module: ExpertsModule, experts: tuple[ExpertLocations, ...]) -> Iterator[SourceMatrix]:
    for number, expert in enumerate(experts):
        for place, source in enumerate(expert.matrices):
            (plain,) = source.parts
            yield SourceMatrix(f"{module.name}.{number}.{place}", plain, module.form.transposed)


def _moved(experts: tuple[ExpertLocations, ...], file: QuantisedFile) -> Iterator[ExpertLocations]:
    """The experts with their matrices in `file`; biases stay where they are."""
    places = file.locations()
    for expert in experts:
        first = tuple(next(places) for _ in expert.first)
        yield replace(expert, first=first, down=next(places))


def _check_sizes(architecture: str, expert: ExpertLocations, module: ExpertsModule, format: WeightFormat) -> None:
    for location in expert.matrices:
        width = location.shape[0 if module.form.transposed else 1]
        if width % format.multiple:
            raise OptionError(
                f"--quantize {format.name}: {architecture} has experts with {width} inputs, and the kernel takes "
                f"multiples of {format.multiple}; serve it without --quantize"
            )


def _identity(sources: Sequence[quantised_cache.State]) -> str:
    """A digest of the states of a checkpoint's files: another one if any of them is replaced or written to."""
    return hashlib.sha256(json.dumps([_FORMAT, sources]).encode()).hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone in `folder` among processes. The kernel frees the lock of one that dies."""
    fd = os.open(folder / quantised_cache.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process, which writes %s", folder)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _logged(name: str, folder: Path, needed: int) -> Advance:
    """A function that logs progress."""
    log.info("writing %s weights to %s: %.2f GB, once for this checkpoint", name, folder, needed / 1e9)
    lock, done, said = threading.Lock(), 0, time.monotonic()

    def advance(nbytes: int) -> None:
        nonlocal done, said
        with lock:
            done += nbytes
            if time.monotonic() > said + _REPORT_SECONDS:
                said = time.monotonic()
                log.info("%s weights: %d %% written", name, 100 * done // needed)

    return advance
