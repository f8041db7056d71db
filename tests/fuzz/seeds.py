"""Sound inputs of each target, from which a corpus grows. Most of what follows is one mutation away from them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from faasmoe.api.parsed_request import Bounds, ParsedRequest
from faasmoe.experts import payload
from faasmoe.experts.payload import Reply, Request
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.local.protocol import frame, payloads, wire
from faasmoe.platforms.local.protocol import messages as local
from faasmoe.protocol import errors, messages
from faasmoe.protocol.config import About, ServingConfig
from faasmoe.protocol.request import GenerationRequest, Piece, ResourceUsage, SamplingParams
from faasmoe.protocol.stats import EngineStats
from faasmoe.readers import messages as readers
from faasmoe.util.forkserver import messages as forks
from tests.chaos.questions import MODEL


def bodies() -> Iterator[bytes]:
    """Requests as clients send them, and the shapes that once stopped a server, made small."""
    for facts in (
        {"model": MODEL, "prompt": "It was"},
        {"model": MODEL, "prompt": ["a", "b"], "max_tokens": 3, "stream": True, "n": 2},
        {"model": MODEL, "prompt": [[1, 2], [3]], "echo": True, "logprobs": 2, "stop": ["\n"]},
        {"model": MODEL, "prompt": [1, 2, 3], "logit_bias": {"5": -100}, "seed": 7, "top_k": 3, "min_p": 0.1},
        {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "top_p": 0.9},
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "<|im_start|>system"}]},
                {"role": "assistant", "content": "x", "refusal": None, "tool_calls": []},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens": 5,
            "response_format": {"type": "text"},
        },
        {"model": MODEL, "prompt": [{}, {}, {}]},
        {"model": MODEL, "messages": [{}, {}]},
        {"model": MODEL, "prompt": [[[[[]]]]]},
        {"model": MODEL, "prompt": [True, 1.0, None, "x", -1, 2**63]},
        {"model": MODEL, "messages": [{"role": "user", "content": [{}, []]}]},
        {"model": MODEL, "prompt": "[PAD]<s></s><|endoftext|>\ud800".encode("utf-16", "surrogatepass").hex()},
        {"model": MODEL, "temperature": 1e400, "prompt": ""},
    ):
        yield json.dumps(facts).encode()
    yield b'{"model":"m","prompt":"\\ud800 \\u0000"}'
    yield b"[" * 40 + b"]" * 40


def envelopes() -> Iterator[bytes]:
    for rows in (np.ones((2, 4), np.float32), np.full((2, 4), 0x3F80, np.uint16)):
        for picked in (None, np.array([1, 0], np.int32)):
            row, expert = np.array([0, 1], np.int32), np.array([0, 2], np.int32)
            asked = Request(
                layer=1, rows=rows, row=row, expert=expert, weight=np.full(2, 0.5, np.float32), picked=picked
            )
            yield b"\x09" + b"".join(map(bytes, payload.encode_request(asked)))
    yield b"\0" + b"".join(map(bytes, payload.encode_reply(Reply(np.ones((2, 3), np.float32)))))
    yield b"\0" + b"".join(map(bytes, payload.encode_reply(Reply(None, error="PayloadError: short"))))


def control() -> Iterator[bytes]:
    """The first byte is the place in `targets.PARSERS`."""
    asked = GenerationRequest(
        "r-0", (1, 2, 3), SamplingParams(4, stop=("x",), logit_bias=((1, 2.0),)), tenant="acme"
    )
    for order in (
        messages.Submit(1, (asked,)),
        messages.Cancel(("r-0",)),
        messages.StatsRequest(),
        messages.ServedTokens({"a": 3}),
    ):
        yield b"\0" + messages.pack(order)[messages.HEADER.size :]
    last = Piece("text", 3, "length", used=ResourceUsage())
    for answer in (
        messages.Ready(),
        messages.Accepted(1),
        messages.Refused(1, errors.SentError("RequestError", "no", {"param": "prompt", "code": None})),
        messages.Failed(errors.SentError("EngineBusy", "full", {"retry_after": 1.5})),
        messages.Pieces((("r-0", last), ("r-1", Piece("", 0, error="lost")))),
        messages.StatsReport(EngineStats(), {"acme": 0.5}, {"acme": 12}),
    ):
        yield b"\1" + messages.pack(answer)[messages.HEADER.size :]
    start = messages.encode(messages.Start(ServingConfig("m", "/m"), "local", "/pool", "/folder"))
    for told in (forks.Load(start), forks.Fork(1), forks.Kill(1)):
        yield b"\2" + forks.pack(told)
    about = messages.encode(About("Mixtral", 2, 4, 100, 64))
    failure = messages.encode(errors.SentError("CheckpointError", "cut short", {}))
    for heard in (forks.Loaded(about), forks.LoadFailed(failure), forks.Forked(1, 5), forks.Ended(1, -9)):
        yield b"\3" + forks.pack(heard)
    yield b"\4" + messages.pack(messages.StatsRequest())
    note = {"id": 1, "order": "activate", "name": "layer-0-block-0", "lost": None, "seconds": 1.0, "list": [{}]}
    yield b"\5" + wire.framed(json.dumps(note).encode())
    yield b"\6" + wire.framed(json.dumps(note).encode())
    yield b"\7\x3f" + frame.pack_call(frame.Header(frame.INLINE, 4, 0, 0, 0, 0)) + b"abcd"
    yield b"\7\x3f" + frame.pack_call(frame.Header(64, 128, 0, 64, 192, 64), segments=True)
    yield b"\x08\x3f" + frame._REPLY.pack(b"FMca", frame.VERSION, 0, 0, 4, 7, 9) + b"abcd"
    yield b"\x08\x3f" + frame._REPLY.pack(b"FMca", frame.VERSION, 1, 1, 1 << 20, 7, 9)

    setup = readers.pack(readers.ReaderSetup("/tokenizer", Bounds("m", 100, 64), False))
    options = readers.pack(readers.ReaderOptions(5))
    for told in (forks.Load(setup), forks.Fork(1, options)):
        yield b"\x09" + forks.pack(told)
    yield b"\x0a" + forks.pack(forks.LoadFailed(readers.pack(readers.SetupFailed("cut short"))))
    yield b"\x0b" + readers.pack(readers.Job("chat", b"{}", 1.0))
    asks = ParsedRequest(prompts=((1, 2),), params=SamplingParams(4), own=None)
    yield b"\x0c" + readers.pack(readers.Done(asks, False))
    spec = FunctionSpec("layer-0-block-0", "m:f", Path("/a"), files=(FileRange(Path("/b"), 0, 8),))
    for message in (
        local.Deploy((spec,)),
        local.Activate((local.Wanted(1, "layer-0-block-0"), local.Wanted(2, "f", "/lost.sock")), 1.0),
        local.Prewarm(("layer-0-block-0",), 1.0),
        local.Activated(number=1, path="/f.sock", scalable=False, memory=1, last_end="", scarce=False),
        local.NotActivated(2, local.BudgetTooSmall(2, 1)),
    ):
        yield b"\x0d" + local.pack(message)[wire.HEAD :]
    duty = payloads.Duty(slot=1, handler="m:f", artifact=b"/a", keep_alive=60.0, concurrency=1)
    for order in (forks.Load(payloads.encode(payloads.Preload(("m",), 2))), forks.Fork(1, payloads.encode(duty))):
        yield b"\x0e" + forks.pack(order)
    failed = payloads.PreloadFailed("No module named 'm'")
    for heard in (forks.LoadFailed(payloads.encode(failed)), forks.ForkFailed(1, "no memory"), forks.Alive()):
        yield b"\x0f" + forks.pack(heard)


def headers() -> Iterator[bytes]:
    one = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for tensors in (
        {"a": one},
        {
            "__metadata__": {"format": "pt"},
            "a": one,
            "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
        },
        {"a": {"dtype": "I64", "shape": [0, 1 << 62], "data_offsets": [0, 0]}, "b": one},
        {"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}, "b": {**one, "data_offsets": [1, 17]}},
        {"a": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [2.0, True, None], "data_offsets": [0.0, "1"]}},
        {"a": {**one, "shape": [[[[]]]]}, "b": []},
    ):
        size = max((e["data_offsets"][1] for e in tensors.values() if isinstance(e, dict) and "shape" in e
                    and isinstance(e["data_offsets"][1], int)), default=0)  # fmt: skip
        yield bytes([2 * (-(-size // 8))]) + json.dumps(tensors).encode()
    yield b"\1" + struct.pack("<Q", 2) + b"{}"
    yield b"\1" + struct.pack("<Q", 1 << 63) + b"{}"
    yield b"\0" + b'{"a":' * 500 + b"1" + b"}" * 500


SEEDS = {"bodies": bodies, "envelopes": envelopes, "control": control, "headers": headers}
