"""What fewer bits cost in quality: int8 and int4 against bfloat16, and that against float32, on text nobody trained on.

Give it the corpus that the demo model was trained on, of which it takes the last 2 % of every domain (these were
held out), any other text, or both. Runs the model once for each type side by side, through this project's own kernels.
"""

from __future__ import annotations

import argparse
import lzma
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from benchmarks.figures import Figures, report
from faasmoe.model.checkpoint.source import ModelSource, resolve
from faasmoe.model.dense.attention import Span
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.platforms.inline.platform import InlinePlatform

HELD_OUT = 0.02  # of each domain, as in examples/train_demo_model.py
WINDOW = 256  # tokens, as in the demo model's card
WAYS: dict[str, dict[str, str]] = {
    "float32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "int4"},
}
PAIRS = (("bf16", "int8"), ("bf16", "int4"), ("float32", "bf16"))  # what is wanted, and what is measured
LIMITS = {"int8_kl_nats": 0.01, "int4_kl_nats": 0.02}  # per token, on the text where it is largest


def held_out(corpus: Path) -> Iterator[str]:
    """The part of each domain that was not trained on."""
    for path in sorted(corpus.glob("*.txt.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as stream:
            text = stream.read()
        yield text[int(len(text) * (1 - HELD_OUT)) :]


def windows(texts: list[str], serving: Runtime, most: int) -> list[list[int]]:
    """At most `most` windows, evenly spread over each text and as many of each."""
    chosen = []
    for text in texts:
        ids = serving.tokenizer.encode(text)
        starts = list(range(0, len(ids) - WINDOW, WINDOW))
        step = max(1, len(starts) * len(texts) // most)
        chosen += [ids[start : start + WINDOW + 1] for start in starts[::step]]
    return chosen


@torch.inference_mode()
def log_probabilities(serving: Runtime, tokens: list[int]) -> Tensor:
    """Of every token's successor, `[len(tokens), vocabulary]`."""
    count = len(tokens)
    every = list(range(count))
    state = serving.model.state_spec.allocate()
    state.reserve(count)
    logits = serving.model.forward(tokens, every, [Span(state, count)], every)
    return logits.double().log_softmax(-1)


class Comparison:
    """Sums over tokens, of one way to compute against another."""

    def __init__(self) -> None:
        self.tokens, self.divergence, self.agreed, self.worst = 0, 0.0, 0, 0.0

    def add(self, wanted: Tensor, got: Tensor) -> None:
        each = (wanted.exp() * (wanted - got)).sum(-1)
        self.tokens += len(each)
        self.divergence += float(each.sum())
        self.worst = max(self.worst, float(each.max()))
        self.agreed += int((wanted.argmax(-1) == got.argmax(-1)).sum())

    def figures(self, name: str) -> Figures:
        return {
            f"kl_{name}_millinats": 1e3 * self.divergence / self.tokens,  # per token
            f"worst_kl_{name}_millinats": 1e3 * self.worst,
            f"top1_{name}_percent": 100 * self.agreed / self.tokens,
        }


def measure(source: ModelSource, texts: list[str], most: int) -> Figures:
    """On one set of texts."""
    pairs = {pair: Comparison() for pair in PAIRS}
    nats, tokens = dict.fromkeys(WAYS, 0.0), 0
    with ExitStack() as stack:
        ways = {
            name: stack.enter_context(Runtime(make_plan(source, **options), InlinePlatform, WINDOW))  # type: ignore[arg-type]
            for name, options in WAYS.items()
        }
        for ids in track(windows(texts, ways["int8"], most), "windows"):
            inputs, successors = ids[:-1], torch.tensor(ids[1:])
            got = {name: log_probabilities(serving, inputs) for name, serving in ways.items()}
            for name, its in got.items():
                nats[name] -= float(its.gather(1, successors[:, None]).sum())
            for (wanted, other), comparison in pairs.items():
                comparison.add(got[wanted], got[other])
            tokens += len(inputs)
    figures: Figures = {"tokens": tokens}
    for (wanted, other), comparison in pairs.items():
        figures |= comparison.figures(f"{other}_vs_{wanted}")
    return figures | {f"perplexity_{name}": math.exp(total / tokens) for name, total in nats.items()}


def measure_all(source: ModelSource, sets: dict[str, list[str]], most: int) -> Figures:
    """On each set of texts, with its name before a figure's."""
    found = {name: measure(source, texts, most) for name, texts in sets.items()}
    figures: Figures = {
        f"{kind}_kl_nats": max(its[f"kl_{kind}_vs_bf16_millinats"] for its in found.values()) / 1e3
        for kind in ("int8", "int4")
    }
    return figures | {f"{name}_{key}": value for name, its in found.items() for key, value in its.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or hub id; the demo model without it")
    parser.add_argument("--corpus", type=Path, help="folder of DOMAIN.txt.xz that the demo model was trained on")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="files of text that was not trained on")
    parser.add_argument(
        "--windows", type=int, default=200, help=f"of {WINDOW} tokens, at most, of each of the two"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    sets: dict[str, list[str]] = {}
    if args.corpus:
        sets["held_out"] = list(held_out(args.corpus))
        if not sets["held_out"]:
            parser.error(f"--corpus {args.corpus}: holds no DOMAIN.txt.xz")
    if args.text:
        sets["text"] = ["\n".join(path.read_text() for path in args.text)]
    if not sets:
        parser.error("give --corpus, --text or both")
    report(measure_all(resolve(args.model), sets, args.windows), LIMITS, args.json)


if __name__ == "__main__":
    main()
