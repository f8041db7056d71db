"""Tells the gateway which bytes of the checkpoint an orchestrator on another machine reads."""

from __future__ import annotations

from pathlib import Path

from faasmoe.model.checkpoint.files import CheckpointFiles
from faasmoe.model.dense_ranges import dense_ranges
from faasmoe.model.plan import ModelPlan
from faasmoe.protocol import dense_part


def write_dense_part(plan: ModelPlan, files: CheckpointFiles, artifact: Path) -> None:
    """Write the file of `protocol.dense_part`; none where weights are used from a copy, which other machines lack.

    `files` are those of the checkpoint's folder. Raises `OSError`.
    """
    if plan.quantised:
        return
    ranges, states = dense_ranges(plan, files), {**files.states, **plan.checkpoint.files}
    rows = [
        (str(file), state.device, state.inode, state.size, state.mtime_ns)
        for file in sorted({each.file for each in ranges})
        if (state := states[file])
    ]
    dense_part.write(artifact, rows, [(str(file), offset, length) for file, offset, length in ranges])
