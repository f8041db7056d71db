"""What a schema costs a step: eight sequences, all of them held to it, beside the same eight that are not.

Two layers of Qwen1.5-MoE-A2.7B's shape with random weights, functions as processes, and a made-up vocabulary of Qwen's
size (151,936 tokens: bytes, pieces of JSON, and words of random letters), since the model's own tokens come from a hub.
Runs alternate; figures are medians. The cost is that of sampling: tokens of a schema are routed to other experts than
free ones, so whole steps differ for another reason as well. `vocabulary_s` is what the first grammar of an orchestrator
waits for, `compile_ms` what another one does, `mask_us` the tokens that are allowed, for one sequence, `first_mask_ms`
the first of a schema.
"""

from __future__ import annotations

import argparse
import queue
import random
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.decode.models import make
from benchmarks.decode.serving import Ours, functions, ours
from benchmarks.figures import Figures, report
from benchmarks.peers import Task
from faasmoe.api.bodies.grammars import json_schema
from faasmoe.engine.grammar.compiler import GrammarCompiler
from faasmoe.engine.grammar.matcher import GrammarMatcher
from faasmoe.protocol.request import SamplingParams

LIMITS = {"schema_step_cost_percent": 5.0}
VOCABULARY = 151_936
SPECIAL = 26
SCHEMA = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "number"}, "kind": {"enum": ["sea", "shore"]}},
        "required": ["name", "size", "kind"],
        "additionalProperties": False,
    },
}
SEQUENCES, TOKENS = 8, 24
_JSON = (
    b'"',
    b'{"',
    b'":',
    b'": "',
    b'",',
    b'", "',
    b"}",
    b"},",
    b"\n  ",
    b"[",
    b"]",
    b"0",
    b"12",
    b".5",
    b"true",
)


class MadeUp:
    """Tokens as a tokenizer of Qwen's size has them."""

    def __init__(self) -> None:
        chance, letters = random.Random(1), b"etaoinshrdlucmfwypvbgkjqxz"
        tokens = dict.fromkeys([*(bytes([i]) for i in range(256)), *_JSON])
        while len(tokens) < VOCABULARY - SPECIAL:
            word = bytes(chance.choices(letters, k=chance.randint(2, 9)))
            tokens[b" " + word if chance.random() < 0.4 else word] = None
        self._ids = {token: i for i, token in enumerate(tokens)}
        self._tokens = [*tokens, *(b"<|%d|>" % i for i in range(SPECIAL))]
        self.special_tokens = range(VOCABULARY - SPECIAL, VOCABULARY)

    def token_bytes(self, token: int) -> bytes:
        return self._tokens[token]

    def plain(self, text: str) -> list[int]:
        data, found = text.encode(), []
        while data:
            size = next(n for n in range(min(10, len(data)), 0, -1) if data[:n] in self._ids)
            found.append(self._ids[data[:size]])
            data = data[size:]
        return found


class Constrained(Ours):
    """The same model, whose requests are held to a grammar."""

    grammar: str

    def params(self, tokens: int) -> SamplingParams:
        return SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, grammar=self.grammar)


def by_itself(tokens: MadeUp, grammar: str) -> tuple[GrammarCompiler, Figures]:
    """Compiling and masks, without a model."""
    compiler = GrammarCompiler(tokens, VOCABULARY, [VOCABULARY - 1])
    done: queue.SimpleQueue[GrammarMatcher | Exception] = queue.SimpleQueue()

    def compiled(text: str) -> tuple[GrammarMatcher, float]:
        start = time.perf_counter()
        compiler.compile(text, done.put)
        found = done.get(timeout=60)
        if isinstance(found, Exception):
            raise found
        return found, time.perf_counter() - start

    _, first = compiled(json_schema({"type": "object"}, "schema"))
    place, second = compiled(grammar)
    times, chance = [], random.Random(2)
    for _ in range(400):
        start = time.perf_counter()
        allowed = place.allowed()
        times.append(time.perf_counter() - start)
        place.take(int(chance.choice(allowed.nonzero()[0].tolist())))
    return compiler, {
        "vocabulary_s": first,
        "compile_ms": second * 1e3,
        "first_mask_ms": times[0] * 1e3,
        "mask_us": statistics.median(times) * 1e6,
    }


def step_of(running: Ours, task: Task) -> tuple[float, float]:
    """Milliseconds of a step, and those of its sampling, while `task` runs."""
    before = running.serving.stats()
    running.run(task)
    after = running.serving.stats()
    steps = sum(after.step_seconds.counts) - sum(before.step_seconds.counts)
    whole = after.step_seconds.total - before.step_seconds.total
    return 1e3 * whole / steps, 1e3 * (after.phases["sample"] - before.phases["sample"]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model of this shape, made if it is not there")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    grammar = json_schema(SCHEMA, "schema")
    compiler, figures = by_itself(MadeUp(), grammar)
    with tempfile.TemporaryDirectory() as folder:
        made = make(options.model or Path(folder) / "model", "--layers", "2")
        with ours(made, functions, block_size=20) as free:
            free.serving.engine._grammars = compiler  # of the tokens above: the model's own are bytes
            held = Constrained(free.serving)
            held.grammar = grammar
            task = Task(SEQUENCES, 16, TOKENS, 0)
            took: dict[str, list[tuple[float, float]]] = {"free": [], "held": []}
            for _ in range(options.rounds):
                for name, run in (("free", free), ("held", held)):
                    run.asked = max(free.asked, held.asked)
                    took[name].append(step_of(run, task))
    free_step, free_sample = map(statistics.median, zip(*took["free"], strict=True))
    held_step, held_sample = map(statistics.median, zip(*took["held"], strict=True))
    figures["step_ms"], figures["step_with_schema_ms"] = free_step, held_step
    figures["sampling_ms"], figures["sampling_with_schema_ms"] = free_sample, held_sample
    figures["schema_step_cost_percent"] = 100 * (held_sample - free_sample) / free_step
    report(figures, LIMITS, options.json)


if __name__ == "__main__":
    main()
