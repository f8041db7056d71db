"""How far a token and a prompt are from what the machine can do: reading memory, and multiplying."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import linear

from benchmarks.decode.models import token_weights
from benchmarks.decode.peers import cores
from benchmarks.decode.serving import ONE, PREFILL, functions, ours
from benchmarks.figures import Figures
from faasmoe.experts.kernels.library import ADDRESS, FLOAT, INT, LIBRARY

_BYTES = 512 << 20  # for each core to read: more than caches hold
_OUTS, _INS = 1408, 2048  # a layer of an expert of Qwen1.5-MoE
_SUMS = 12  # of `c/base/limits.c`
_TIMES = 40_000_000 // _SUMS  # a sixth of a second or so

_read_all = LIBRARY.function("read_all", ADDRESS, INT, result=FLOAT)


def against_limits(folder: Path, rounds: int) -> Figures:
    """One sequence against reading its weights alone, a prompt against multiplying alone, in turns."""
    layers, head = token_weights(folder)
    steps, prompts, reads, peaks, torchs = series = tuple[list[float], ...]([] for _ in range(5))
    with ours(folder, functions) as mine, ThreadPoolExecutor(cores()) as pool:
        reading, dots, multiplying = _reading(pool), _multiplying(pool), _onednn()
        for number in range(-1, rounds):
            seed = 10 * number + 100  # a prompt that was there before would be in the prefix cache
            step = mine.run(replace(ONE, seed=seed)).decode / ONE.tokens
            prompt = mine.run(replace(PREFILL, seed=seed)).prefill
            measured = (step, prompt, reading(), dots(), multiplying())
            if number >= 0:  # the first round warms up
                for times, each in zip(series, measured, strict=True):
                    times.append(each)
    read = statistics.median(reads)
    best = max(statistics.median(peaks), statistics.median(torchs))
    products = 2 * (layers * PREFILL.prompt + head)
    return {
        "read_gb_s": read / 1e9,
        "decode_gb_s": (token := 2 * (layers + head)) / statistics.median(steps) / 1e9,
        "decode_bandwidth_share": token / statistics.median(steps) / read,
        "peak_gflops": statistics.median(peaks) / 1e9,
        "onednn_gflops": statistics.median(torchs) / 1e9,
        "prefill_gflops": products / statistics.median(prompts) / 1e9,
        "prefill_flops_share": products / statistics.median(prompts) / best,
    }


def _reading(pool: ThreadPoolExecutor) -> Callable[[], float]:
    """Bytes a second that all cores read together."""
    memory = [np.ones(_BYTES, np.uint8) for _ in range(cores())]

    def run() -> float:
        start = time.perf_counter()
        list(pool.map(lambda each: _read_all(each.ctypes.data, _BYTES), memory))
        return len(memory) * _BYTES / (time.perf_counter() - start)

    return run


def _multiplying(pool: ThreadPoolExecutor) -> Callable[[], float]:
    """Operations a second of all cores on registers: products of bfloat16 added up, or of float32 without these."""
    name = "multiply_bfloat16" if LIBRARY.function("multiply_bfloat16", INT, result=INT)(1) else "multiply_float32"
    function = LIBRARY.function(name, INT, result=INT)

    def run() -> float:
        start = time.perf_counter()
        lanes = list(pool.map(function, [_TIMES] * cores()))
        return float(2 * sum(lanes) * _TIMES * _SUMS / (time.perf_counter() - start))

    return run


def _onednn() -> Callable[[], float]:
    """Operations a second of oneDNN, on all cores, in a linear layer over a prompt's rows."""
    x, weight = torch.randn(PREFILL.prompt, _INS).bfloat16(), torch.randn(_OUTS, _INS).bfloat16()

    def run() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(cores())
        linear(x, weight)
        start = time.perf_counter()
        for _ in range(20):
            linear(x, weight)
        took = time.perf_counter() - start
        torch.set_num_threads(before)
        return 20 * 2 * PREFILL.prompt * _OUTS * _INS / took

    return run
