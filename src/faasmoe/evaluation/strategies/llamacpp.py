"""llama.cpp on the same weights, mapped from its file, one sequence at a time. Needs gguf and llama-cpp-python."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import llama_cpp as lib
import numpy as np

from faasmoe.evaluation.strategies.gguf_file import made
from faasmoe.evaluation.strategies.protocol import Answered, Orders, Played
from faasmoe.evaluation.strategies.registry import Player
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.util.machine import cores

_BATCH = 512  # tokens in one call


@contextmanager
def serve(orders: Orders) -> Iterator[Player]:
    """Answers requests that tell how many tokens their prompt has, one after the other."""
    llama = Llama(made(Path(orders.model)), cores())

    def play(asks: Sequence[Ask]) -> Played:
        started, requests = time.monotonic(), []
        for number, ask in enumerate(asks):
            asked = time.monotonic() - started
            length = int(ask.prompt)
            prefill, decode = llama.run(1, length, ask.max_tokens - 1, number)  # the prompt gives the first one
            first = asked + prefill
            requests.append(
                Answered(
                    tenant=ask.tenant,
                    asked=asked,
                    first=first,
                    end=first + decode,
                    prompt_tokens=length,
                    tokens=ask.max_tokens,
                )
            )
        return Played(requests=tuple(requests))

    yield play


class Llama:
    """A model, mapped from its file, and a context of so many tokens for up to `sequences` sequences."""

    def __init__(self, path: Path, threads: int, sequences: int = 1, context: int = 1024) -> None:
        lib.llama_backend_init()
        self._silence = lib.llama_log_callback(lambda *_: None)  # must outlive the library's use of it
        lib.llama_log_set(self._silence, None)
        model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        self._vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, _BATCH, _BATCH
        params.n_seq_max, params.n_threads, params.n_threads_batch = sequences, threads, threads
        self._context = lib.llama_init_from_model(model, params)
        self._batch = lib.llama_batch_init(_BATCH, 0, 1)

    def run(self, sequences: int, prompt: int, tokens: int, seed: int) -> tuple[float, float]:
        """Seconds for the prompts, and for so many tokens of each sequence after them.

        All tokens are random: which ones they are makes no difference to the time.
        """
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        draw = np.random.default_rng(seed)
        start = time.perf_counter()
        for sequence in range(sequences):
            ids = draw.integers(self._vocabulary, size=prompt).tolist()
            for at in range(0, prompt, _BATCH):
                chunk = range(at, min(at + _BATCH, prompt))
                self._step([(ids[i], i, sequence, i == prompt - 1) for i in chunk])
        filled = time.perf_counter()
        for position in range(prompt, prompt + tokens):
            ids = draw.integers(self._vocabulary, size=sequences).tolist()
            self._step([(token, position, sequence, True) for sequence, token in enumerate(ids)])
        return filled - start, time.perf_counter() - filled

    def _step(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if code := lib.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {code}")
        lib.llama_synchronize(self._context)
