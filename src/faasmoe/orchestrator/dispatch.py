"""From a layer's routing to invocations, and back to one tensor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.errors import FunctionError, PayloadError
from faasmoe.experts.payload import Reply, Request, decode_reply, encode_request, raw, reply_bytes
from faasmoe.model.blocks import Block
from faasmoe.orchestrator.pool import HANDLER
from faasmoe.platforms.base import Call, FileRange, FunctionSpec, Platform

Array = NDArray[np.int64]

_WORTH_SHARING = 32 << 10  # bytes of a layer's rows that are written once for all functions instead of to each
DEADLINE = 120.0  # seconds for one layer: a cold start from a slow disk fits many times over


PHASES = ("pack", "invoke", "combine")  # routing to envelopes, the platform's work, replies to one tensor


@dataclass
class DispatchCounts:
    """What dispatch did so far."""

    invocations: int = 0
    cold_starts: int = 0
    functions_touched: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


class Dispatch:
    """Runs the routed experts of any layer as functions of a platform (`model.dense.RoutedExperts`)."""

    def __init__(self, platform: Platform, blocks: Sequence[Block], deadline: float = DEADLINE) -> None:
        self._platform = platform
        self._deadline = deadline
        self._function_of: dict[int, Array] = {}  # layer to [E]: the block of each expert
        self._first_of: dict[int, Array] = {}  # layer to [E]: the first expert of its block
        self._names: dict[int, list[str]] = {}  # layer to its blocks' functions
        self.functions = len(blocks)
        self.counts = DispatchCounts()
        by_layer: dict[int, list[Block]] = {}
        for block in blocks:
            by_layer.setdefault(block.artifact.layer, []).append(block)
        for layer, its in by_layer.items():
            owner = [i for i, block in enumerate(its) for _ in block.artifact.experts]
            first = [block.artifact.experts[0] for block in its for _ in block.artifact.experts]
            self._function_of[layer] = np.array(owner)
            self._first_of[layer] = np.array(first)
            self._names[layer] = [block.name for block in its]

    def __call__(self, layer: int, hidden: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """`hidden` `[T, H]`, `index` and `weight` `[T, K]` to the weighted sums `[T, H]` in `hidden`'s dtype.

        Slots whose index is E are masked by the model and skipped. Sums are kept in float32, added in the
        order of blocks, and rounded once. Raises `FunctionError` or what the platform raises.
        """
        started = time.perf_counter()
        width = hidden.shape[1]
        share = self._platform.capabilities.shared_memory and hidden.nbytes >= _WORTH_SHARING
        names, requests, rows = self._group(layer, hidden, index, weight, share)
        calls = [
            Call(name, encode_request(request), reply_bytes(request.tokens, width))
            for name, request in zip(names, requests, strict=True)
        ]
        shared = raw(hidden) if share else None
        packed = time.perf_counter()
        replies = self._platform.invoke_many(calls, time.monotonic() + self._deadline, shared)
        invoked = time.perf_counter()
        total = torch.zeros(hidden.shape, dtype=torch.float32)
        for name, reply, its_rows in zip(names, replies, rows, strict=True):
            sums = self._sums(name, decode_reply(reply), its_rows, width)
            if len(its_rows) == len(total):
                total += sums
            else:
                total.index_add_(0, its_rows, sums)  # its rows are distinct
        self.counts.invocations += len(calls)
        self.counts.functions_touched.update(names)
        took = (packed - started, invoked - packed, time.perf_counter() - invoked)
        for phase, seconds in zip(PHASES, took, strict=True):
            self.counts.seconds[phase] += seconds
        return total.to(hidden.dtype)

    def _group(
        self, layer: int, hidden: Tensor, index: Tensor, weight: Tensor, share: bool
    ) -> tuple[list[str], list[Request], list[Tensor]]:
        """Slots by function: its name, its request, and which rows of `hidden` the request's rows are."""
        expert, weights = index.reshape(-1).numpy(), weight.reshape(-1).float().numpy()
        owners, firsts = self._function_of[layer], self._first_of[layer]
        slots = np.flatnonzero(expert < len(owners))
        slots = slots[np.argsort(owners[expert[slots]], kind="stable")]  # by function, and by row within it
        expert, row, weights = expert[slots], slots // index.shape[1], weights[slots]
        owner = owners[expert]
        changes = np.diff(owner, prepend=-1) != 0
        bounds = [*np.flatnonzero(changes).tolist(), len(slots)]
        distinct = changes | (np.diff(row, prepend=-1) != 0)  # the first slot of a row in its function
        place = np.cumsum(distinct) - 1  # of a slot's row among all of `its_rows`
        all_rows = torch.from_numpy(row[distinct])
        local = (place - np.repeat(place[bounds[:-1]], np.diff(bounds))).astype(np.int32)
        inside = (expert - firsts[expert]).astype(np.int32)
        names, requests, rows = [], [], []
        for start, end in pairwise(bounds):
            its_rows = all_rows[place[start] : place[end - 1] + 1]
            request = Request(
                layer,
                hidden if share or len(its_rows) == len(hidden) else hidden[its_rows],
                torch.from_numpy(local[start:end]),
                torch.from_numpy(inside[start:end]),
                torch.from_numpy(weights[start:end]),
                its_rows.int() if share else None,
            )
            names.append(self._names[layer][owner[start]])
            requests.append(request)
            rows.append(its_rows)
        return names, requests, rows

    def _sums(self, name: str, reply: Reply, rows: Tensor, width: int) -> Tensor:
        if reply.sums is None:
            kind, _, message = (reply.error or "").partition(": ")
            raise FunctionError(name, kind, message)
        if reply.sums.shape != (len(rows), width):
            raise PayloadError(f"function {name} answered {tuple(reply.sums.shape)}, not {(len(rows), width)}")
        self.counts.cold_starts += reply.cold
        return reply.sums


def deploy(platform: Platform, blocks: Sequence[Block], folder: Path) -> None:
    """Write the blocks' artifacts into `folder` and deploy them as functions."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = []
    for block in blocks:
        artifact = folder / f"{block.name}.json"
        artifact.write_text(block.artifact.to_json())
        parts = [part for expert in block.artifact.weights for part in expert]
        files = [FileRange(part.file, part.offset, part.nbytes) for part in parts]
        specs.append(FunctionSpec(block.name, HANDLER, artifact, block.artifact.memory, _joined(files)))
    platform.deploy(specs)


def check_fits(platform: Platform, blocks: Sequence[Block], top_k: int) -> None:
    """Raises `OptionError` if the platform's memory cannot hold what one token needs in the layer that needs most."""
    by_layer: dict[int, list[Block]] = {}
    for block in blocks:
        by_layer.setdefault(block.artifact.layer, []).append(block)
    needs = [
        sorted(its, key=lambda block: block.artifact.memory, reverse=True)[:top_k] for its in by_layer.values()
    ]
    worst = max(needs, key=lambda need: sum(block.artifact.memory for block in need), default=[])
    platform.check_fits([block.name for block in worst])


def _joined(files: Sequence[FileRange]) -> tuple[FileRange, ...]:
    """Neighbouring ranges as one."""
    joined: list[FileRange] = []
    for part in sorted(files, key=lambda part: (str(part.file), part.offset)):
        last = joined[-1] if joined else None
        if last and last.file == part.file and last.offset + last.length == part.offset:
            joined[-1] = FileRange(last.file, last.offset, last.length + part.length)
        else:
            joined.append(part)
    return tuple(joined)
