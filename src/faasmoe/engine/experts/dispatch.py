"""Turns a layer's routing into invocations of functions, and their replies into one tensor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.engine.experts.costs import StepCosts
from faasmoe.engine.experts.grouping import WORTH_SPLITTING, Grouping, Part, combine
from faasmoe.engine.experts.layer_arrays import ArraysByLayer, LayerArrays
from faasmoe.errors import FunctionError, PayloadError, ServingError
from faasmoe.experts import HANDLER
from faasmoe.experts.payload import Reply, decode_reply, encode_slots, reply_bytes
from faasmoe.model.checkpoint.files import CheckpointFiles
from faasmoe.model.dense.layer_experts import Meanwhile
from faasmoe.model.tensors import NAME_OF
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.base import Call, FileRange, FunctionSpec, Platform

_LOOK_SECONDS = 1.0  # between looks at the model's files
DEADLINE = 120.0  # seconds for one layer: a cold start from a slow disk fits many times over


INSIDE = ("route", "queue", "compute")  # the first of "pack", the others of "invoke"
PHASES = ("pack", "invoke", "combine")  # routing to envelopes, the platform's work, replies to one tensor


@dataclass(kw_only=True)
class DispatchCounts:
    """Counts of all calls so far, and where their time went."""

    invocations: int = 0
    functions: int = 0  # functions called, each counted once a layer
    cold_starts: int = 0
    functions_touched: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    inside: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INSIDE, 0.0))  # of those seconds


class Dispatch:
    """Runs the routed experts of any layer as functions of a platform (`model.dense.layer_experts.RoutedExperts`)."""

    def __init__(
        self,
        platform: Platform,
        blocks: Sequence[Block],
        deadline: float = DEADLINE,
        files: CheckpointFiles | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`files` are those that the model and its functions map. They are checked once a second and after failures."""
        self._platform = platform
        self._files = files or CheckpointFiles({})
        self._clock = clock
        self._look_at = 0.0
        self._stale = False  # a file was not as it was; calls fail until it is again, and none is sent
        self._deadline = deadline
        self._parallelism = platform.capabilities.parallelism
        self._shares = platform.capabilities.shared_memory
        self._worth_sharing = platform.capabilities.worth_sharing
        self._groupings: dict[int, Grouping] = {}  # by layer
        self._arrays = ArraysByLayer()
        self._names: dict[int, list[str]] = {}  # layer to its blocks' functions
        self.functions = len(blocks)
        self.counts = DispatchCounts()
        self.costs = StepCosts()
        by_layer: dict[int, list[Block]] = {}
        for block in blocks:
            by_layer.setdefault(block.artifact.layer, []).append(block)
        for layer, its in by_layer.items():
            sizes = [len(block.artifact.experts) for block in its]
            parts = min(self._parallelism, max(map(_most_parts, its)))
            self._groupings[layer] = Grouping(sizes, parts)
            self._names[layer] = [block.name for block in its]

    def __call__(
        self,
        layer: int,
        hidden: Tensor,
        index: Tensor,
        weight: Tensor,
        meanwhile: Meanwhile | None = None,
    ) -> Tensor:
        """`hidden` `[T, H]`, `index` and `weight` `[T, K]` to the weighted sums `[T, H]` in `hidden`'s dtype.

        `meanwhile` is called when the experts have been sent for if their calls leave the platform room for more.
        Where they do not, it would only take turns with them (docs/performance.md).
        Slots whose index is E are masked by the model and skipped. Sums are kept in float32, added in the
        order of blocks, and rounded once. They are valid until the next call with the same tensors. Raises
        `FunctionError` or what the platform raises, or `CheckpointChanged` if a file of the model is not as it was.
        """
        started = self._clock()
        self._look(started)
        shared = self._shares and hidden.nbytes >= self._worth_sharing
        arrays = self._arrays.of(layer, hidden, index, weight)
        parts = self._groupings[layer].parts(arrays.index, arrays.weight)
        routed = self._clock()
        calls = self._pack(layer, hidden, arrays, parts, shared)
        work = meanwhile if len(calls) < self._parallelism else None
        self.costs.send(self._names[layer], parts)
        total = arrays.total
        packed = self._clock()
        deadline = time.monotonic() + self._deadline
        if meanwhile:
            meanwhile.pause()
        try:
            replies = self._platform.invoke_many(calls, deadline, arrays.rows if shared else None, work)
        except ServingError:
            # why an instance cannot be started, or dies as soon as it reads its weights
            self._check(self._files.check)
            raise
        if meanwhile:
            meanwhile.resume()
        invoked = self._clock()
        answers = [decode_reply(reply) for reply in replies]
        self.costs.add(parts, answers, replies)
        sums = [
            self._sums(call.function, answer, len(part.rows), hidden.shape[1])
            for call, answer, part in zip(calls, answers, parts, strict=True)
        ]
        combine(parts, sums, total)
        self.counts.inside["route"] += routed - started
        self._count(calls, answers, (packed - started, invoked - packed, self._clock() - invoked))
        return total if total.dtype == hidden.dtype else total.to(hidden.dtype)

    def _look(self, now: float) -> None:
        """Check the files if that is due. Raises `CheckpointChanged` if one has changed, from then on every time."""
        if self._stale:
            self._check(self._files.check)
        elif now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._check(self._files.check_mapped)

    def _check(self, check: Callable[[], None]) -> None:
        self._stale = True
        check()
        self._stale = False

    def _count(self, calls: Sequence[Call], answers: Sequence[Reply], seconds: Sequence[float]) -> None:
        """Count the calls of a layer and the seconds of each of `PHASES`.

        Times that functions report count as if calls that compute side by side shared the platform evenly.
        """
        names = {call.function for call in calls}
        self.counts.invocations += len(calls)
        self.counts.functions += len(names)
        self.counts.functions_touched |= names
        for phase, took in zip(PHASES, seconds, strict=True):
            self.counts.seconds[phase] += took
        if not answers:
            return
        worked = [answer.timings.load + answer.timings.compute for answer in answers]
        inside, count = self.counts.inside, len(answers)
        inside["compute"] += max(*worked, sum(worked) / min(count, self._parallelism)) / 1e9
        inside["queue"] += sum(answer.timings.queue for answer in answers) / count / 1e9

    def _pack(
        self, layer: int, hidden: Tensor, arrays: LayerArrays, parts: Sequence[Part], shared: bool
    ) -> list[Call]:
        """A call for each part. `arrays` are those of `hidden`."""
        (tokens, width), dtype = hidden.shape, NAME_OF[hidden.dtype]
        lines, whole = arrays.lines, arrays.rows
        calls = []
        for part in parts:
            rows, picked = whole, memoryview(b"")
            if shared:
                rows = picked = part.rows.data.cast("B")
            elif part.follows or len(part.rows) < tokens:
                rows = lines[part.rows].reshape(-1).data
            count = len(part.rows)
            payload = encode_slots(layer, rows, dtype, count, width, part.slots, shared)
            name, room = self._names[layer][part.block], reply_bytes(count, width)
            calls.append(Call(name, payload, room, part.work, picked, lines.shape[1]))
        return calls

    def _sums(self, name: str, reply: Reply, rows: int, width: int) -> NDArray[np.float32]:
        if reply.sums is None:
            kind, _, message = (reply.error or "").partition(": ")
            raise FunctionError(name, kind, message)
        if reply.sums.shape != (rows, width):
            raise PayloadError(f"function {name} answered {reply.sums.shape}, not {(rows, width)}")
        self.counts.cold_starts += reply.cold
        return reply.sums


def write_functions(blocks: Sequence[Block], folder: Path) -> list[FunctionSpec]:
    """Write the blocks' artifacts into `folder`, and return what is to be deployed on any platform.

    An artifact that is there is replaced in one instant: an instance may be reading it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = []
    for block in blocks:
        artifact = folder / f"{block.name}.json"
        draft = artifact.with_suffix(f".{os.getpid()}")  # others may write the same
        draft.write_text(block.artifact.to_text())
        draft.replace(artifact)
        parts = [part for expert in block.artifact.weights for part in expert]
        files = [FileRange(part.file, part.offset, part.nbytes) for part in parts]
        at_once = len(block.artifact.experts)  # parts that `Grouping` makes of it at most
        spec = FunctionSpec(
            block.name,
            HANDLER,
            artifact,
            memory=block.artifact.memory,
            files=_joined(files),
            concurrency=at_once,
            group=block.artifact.layer,
            reading=max(1, block.artifact.memory // at_once),
        )
        specs.append(spec)
    return specs


def deploy(platform: Platform, functions: Sequence[FunctionSpec]) -> None:
    """Deploy `functions`, whose instances run no more calls side by side than the platform can."""
    most = platform.capabilities.parallelism
    platform.deploy([replace(spec, concurrency=min(spec.concurrency, most)) for spec in functions])


def calls_at_once(blocks: Sequence[Block]) -> int:
    """Most calls of one function that an orchestrator has under way, on a platform that can run as many."""
    return max(map(_most_parts, blocks))


def _most_parts(block: Block) -> int:
    """Calls that a block's work can be cut into: one for each expert, if its experts are worth the further calls."""
    experts = len(block.artifact.experts)
    return 1 if block.artifact.memory < WORTH_SPLITTING * experts else experts


def check_fits(platform: Platform, blocks: Sequence[Block], top_k: int) -> None:
    """Raises `OptionError` if the platform's memory cannot hold the functions that one token needs in some layer."""
    by_layer: dict[int, list[Block]] = {}
    for block in blocks:
        by_layer.setdefault(block.artifact.layer, []).append(block)
    needs = [
        sorted(its, key=lambda block: block.artifact.memory, reverse=True)[:top_k] for its in by_layer.values()
    ]
    worst = max(needs, key=lambda need: sum(block.artifact.memory for block in need), default=[])
    platform.check_fits([block.name for block in worst])


def _joined(files: Sequence[FileRange]) -> tuple[FileRange, ...]:
    """The ranges, neighbours joined."""
    joined: list[FileRange] = []
    for part in sorted(files, key=lambda part: (str(part.file), part.offset)):
        last = joined[-1] if joined else None
        if last and last.file == part.file and last.offset + last.length == part.offset:
            joined[-1] = FileRange(last.file, last.offset, last.length + part.length)
        else:
            joined.append(part)
    return tuple(joined)
