"""Tokens per second with speculation against without, on text that is copied with edits and on text that is new.

The model has the geometry of Qwen1.5-MoE-A2.7B with 4 layers and random weights, whose own text says nothing. So it is
given the next token: that of a source file in which a name is changed, after the file itself as the prompt, or that of
prose. What a step costs, and which experts its tokens want, is the model's own. Both take turns, on the same weights
and functions. Needs 3 GB of disk in --folder, where the model is kept for the next time.
"""

from __future__ import annotations

import argparse
import queue
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from torch import Tensor

from benchmarks.decode.models import make
from benchmarks.decode.serving import functions
from benchmarks.figures import Figures, report
from faasmoe.engine.engine import Engine
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.attention import Span
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.protocol.config import EngineOptions, Speculation
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

LIMITS = {"speculation_edit_gain": 1.5, "speculation_plain_ratio": 0.98}

ROOT = Path(__file__).parents[1]
EDITED = (
    ("src/faasmoe/engine/fair_share.py", "tenant", "client"),
    ("src/faasmoe/engine/usage.py", "seconds", "time"),
)
PROSE = ("docs/concepts.md", "docs/tenants.md", "docs/platform.md")
CONTEXT = 2048
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_SURE = 1e6  # added to the logit of the token that is to come

console = Console(stderr=True)


@dataclass
class Vocabulary:
    """Token ids for words, numbers in the order in which they come."""

    ids: dict[str, int] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        return [self.ids.setdefault(token, 1 + len(self.ids)) for token in _TOKEN.findall(text)]


@dataclass(frozen=True)
class Script:
    """A prompt and what the model says to it."""

    prompt: list[int]
    text: list[int]


def edits(vocabulary: Vocabulary, tokens: int) -> list[Script]:
    """Files with a name changed."""
    scripts = []
    for file, old, new in EDITED:
        source = (ROOT / file).read_text()
        prompt, text = (vocabulary.encode(its)[:tokens] for its in (source, source.replace(old, new)))
        scripts.append(Script(prompt, text))
    return scripts


def prose(vocabulary: Vocabulary, tokens: int) -> list[Script]:
    """The first half of a page, and the other."""
    scripts = []
    for file in PROSE:
        text = vocabulary.encode((ROOT / file).read_text())[: 2 * tokens]
        scripts.append(Script(text[: len(text) // 2], text[len(text) // 2 :]))
    return scripts


class Prompter:
    """Stands in for a model's forward, with one sequence at a time, and makes it say what is scripted."""

    def __init__(self, serving: Runtime) -> None:
        self._forward = serving.model.forward
        self._tokens: list[int] = []
        serving.model.forward = self.forward  # type: ignore[method-assign]

    def play(self, script: Script) -> None:
        self._tokens = script.prompt + script.text

    def forward(self, tokens: list[int], positions: list[int], spans: list[Span], wanted: list[int]) -> Tensor:
        logits = self._forward(tokens, positions, spans, wanted)
        for line, row in enumerate(wanted):
            if positions[row] + 1 < len(self._tokens):
                logits[line, self._tokens[positions[row] + 1]] += _SURE
        return logits


class Stage:
    """Engines with and without speculation on one model."""

    def __init__(self, serving: Runtime) -> None:
        self._prompter = Prompter(serving)
        self._serving = serving
        self.engines = {speculation: self._engine(speculation) for speculation in ("off", "ngram")}
        self._asked = 0

    def _engine(self, speculation: Speculation) -> Engine:
        return Engine(
            self._serving.model,
            self._serving.tokenizer,
            end_tokens=frozenset(),
            max_model_len=CONTEXT,
            options=EngineOptions(kv_cache_bytes=1 << 30, speculation=speculation),
            costs=self._serving.dispatch.costs,
        )

    def tokens_per_second(self, speculation: Speculation, script: Script) -> float:
        """From the first token on."""
        self._prompter.play(script)
        self._asked += 1
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        params = SamplingParams(len(script.text), temperature=0)
        request = GenerationRequest(f"{self._asked}", tuple(script.prompt), params)
        self.engines[speculation].submit(request, pieces.put)
        first = pieces.get(timeout=600)
        started = time.perf_counter()
        last = first
        while not last.last:
            last = pieces.get(timeout=600)
        if last.error:
            raise RuntimeError(last.error)
        return (last.tokens - first.tokens) / (time.perf_counter() - started)

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    with Runtime(make_plan(resolve(str(folder))), functions, CONTEXT) as serving:
        serving.platform.prewarm([block.name for block in serving.plan.blocks])
        both = Stage(serving)
        yield both
        both.close()


def compare(both: Stage, scripts: list[Script], rounds: int) -> tuple[dict[str, float], float]:
    """Medians of tokens per second of each engine, and that of their ratio a script and round."""
    rates: dict[str, list[float]] = {name: [] for name in both.engines}
    for number in range(-1, rounds):  # the first round warms up
        for script in scripts:
            names = list(both.engines)
            for name in names if number % 2 else reversed(names):
                console.print(f"round {number + 1}/{rounds}: {len(script.text)} tokens, {name}", end="\r")
                rate = both.tokens_per_second(name, script)  # type: ignore[arg-type]
                if number >= 0:
                    rates[name].append(rate)
    ratios = [on / off for on, off in zip(rates["ngram"], rates["off"], strict=True)]
    return {name: statistics.median(its) for name, its in rates.items()}, statistics.median(ratios)


KINDS: dict[str, Callable[[Vocabulary, int], list[Script]]] = {"edit": edits, "plain": prose}


def measure(folder: Path, kinds: Sequence[str], tokens: int, rounds: int) -> Figures:
    vocabulary, figures = Vocabulary(), Figures()
    with stage(folder) as both:
        for kind in kinds:
            scripts = KINDS[kind](vocabulary, tokens)
            before = both.engines["ngram"].gauges()
            rates, ratio = compare(both, scripts, rounds)
            console.print(f"{kind}: {ratio:.2f}, {rates}")
            after = both.engines["ngram"].gauges()
            proposed, accepted = (
                after[f"speculation_{name}"] - before[f"speculation_{name}"] for name in ("proposed", "accepted")
            )
            figures |= {f"{kind}_{name}_tokens_s": rate for name, rate in rates.items()}
            figures[f"{kind}_accepted_share"] = accepted / proposed if proposed else 0.0
            figures[f"{kind}_row_share"] = both.engines["ngram"]._scheduler._row_cost.share(1)
            figures[f"speculation_{kind}_{'gain' if kind == 'edit' else 'ratio'}"] = ratio
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/faasmoe/benchmarks")
    parser.add_argument("--model", type=Path, help="another checkpoint folder, without random weights as well")
    parser.add_argument("--tokens", type=int, default=300, help="of each text at most (default 300)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of text to measure")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    folder = args.model
    if folder is None:
        args.folder.mkdir(parents=True, exist_ok=True)
        folder = make(args.folder / "qwen1.5-moe-a2.7b-4", "--layers", "4")
    report(measure(folder, args.only, args.tokens, args.rounds), LIMITS, args.json, at_least=LIMITS)


if __name__ == "__main__":
    main()
