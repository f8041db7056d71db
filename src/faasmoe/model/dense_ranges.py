"""The bytes of a checkpoint that loading the dense part reads: what a machine needs that runs an orchestrator."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from faasmoe.model.checkpoint.files import CheckpointFiles
from faasmoe.model.plan import ModelPlan


class ByteRange(NamedTuple):
    """Bytes of a file."""

    file: Path
    offset: int  # bytes
    length: int  # bytes


def dense_ranges(plan: ModelPlan, files: CheckpointFiles) -> list[ByteRange]:
    """The whole config, tokenizer and indexes; of files of weights their headers and the dense part's tensors.

    `files` are those of the checkpoint's folder. Neighbours are joined.
    """
    weights = plan.checkpoint.files
    whole = [
        ByteRange(file, 0, state.size)
        for file, state in files.states.items()
        if file not in weights and file.suffix != ".safetensors"
    ]
    tensors = [part for name in plan.layout.dense for part in plan.checkpoint.location(name).parts]
    its = [ByteRange(part.file, part.offset, part.nbytes) for part in tensors]
    return whole + _joined([*_headers(plan, weights), *its])


def _headers(plan: ModelPlan, weights: Collection[Path]) -> Iterator[ByteRange]:
    """What is before the first tensor of each file."""
    first: dict[Path, int] = {}
    for name in plan.checkpoint:
        for part in plan.checkpoint.location(name).parts:
            first[part.file] = min(part.offset, first.get(part.file, part.offset))
    for file in weights:
        yield ByteRange(file, 0, first[file])


def _joined(ranges: list[ByteRange]) -> list[ByteRange]:
    joined: list[ByteRange] = []
    for each in sorted(each for each in ranges if each.length):
        last = joined[-1] if joined else None
        if last and last.file == each.file and each.offset <= last.offset + last.length:
            end = max(last.offset + last.length, each.offset + each.length)
            joined[-1] = last._replace(length=end - last.offset)
        else:
            joined.append(each)
    return joined
