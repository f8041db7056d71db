"""A full model for each tenant, as transformers runs it: a process each, which answers one request after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from faasmoe.evaluation.strategies.host import one_for_each, play_on_each
from faasmoe.evaluation.strategies.protocol import Answered, Orders, Played
from faasmoe.evaluation.strategies.registry import ONE_MODEL, Player
from faasmoe.evaluation.workloads.ask import Ask


@contextmanager
def serve(orders: Orders) -> Iterator[Player]:
    """Starts a process for each tenant. This one does nothing but pass requests on."""
    ones = msgspec.structs.replace(orders, strategy=ONE_MODEL)
    with one_for_each(orders.tenants, ones) as hosts:
        yield partial(play_on_each, hosts)


@contextmanager
def serve_one(orders: Orders) -> Iterator[Player]:
    """One tenant's model, in this process."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging  # noqa: PLC0415 - who passes on needs none

    logging.disable_progress_bar()
    dtype = "auto" if orders.dtype == "auto" else orders.dtype
    model: Any = AutoModelForCausalLM.from_pretrained(orders.model, dtype=dtype, trust_remote_code=False).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(orders.model, trust_remote_code=False)

    def play(asks: Sequence[Ask]) -> Played:
        started, requests = time.monotonic(), []
        for ask in asks:
            due = 0.0 if ask.time is None else ask.time
            threading.Event().wait(max(0.0, started + due - time.monotonic()))
            asked = time.monotonic() - started if ask.time is None else ask.time
            first, end, prompt = _answer(model, tokenizer, ask)
            requests.append(
                Answered(
                    tenant=ask.tenant,
                    asked=asked,
                    first=first - started,
                    end=end - started,
                    prompt_tokens=prompt,
                    tokens=ask.max_tokens,
                )
            )
        return Played(requests=tuple(requests))

    yield play


class _Instants:
    """Notes when tokens come; the first thing that `generate` puts is the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: object) -> None:
        self.times.append(time.monotonic())

    def end(self) -> None:
        """Nothing is left to be done."""


def _answer(model: Any, tokenizer: Any, ask: Ask) -> tuple[float, float, int]:
    """Instants of the first token and of the end, and the prompt's tokens."""
    import torch  # noqa: PLC0415

    ids = tokenizer.encode(ask.prompt) if isinstance(ask.prompt, str) else [7] * ask.prompt
    instants, row = _Instants(), torch.tensor([ids])
    with torch.inference_mode():
        model.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=ask.max_tokens, min_new_tokens=ask.max_tokens,
            do_sample=False, streamer=instants,
        )  # fmt: skip
    return instants.times[1], time.monotonic(), len(ids)
