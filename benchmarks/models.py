"""Which types of models in the installed transformers are served: a row for each that has routed experts.

Of each type a tiny model with random weights, vectors too, is written to a folder, and served from there in float32.
It is served and right if its logits are within 1e-4 of those of transformers' own forward, and its greedy tokens the
same: batched, in chunks, preempted and resumed, and with a prefix reused. Else it must be refused, with the reason.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.table import Table
from tests import model_types
from tests.integration.tiny_models import (
    PROMPTS,
    TOLERANCE,
    Checkpoint,
    assert_preemption_changes_nothing,
    assert_reuse_changes_nothing,
    greedy_tokens,
    load_model,
    reference_tokens,
    worst_difference,
)
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny

from benchmarks.figures import Figures, report
from faasmoe.errors import UserError, brief
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.rehearsal import rehearse
from faasmoe.model.plan import make_plan

KINDS = {
    "causal": model_types.causal_types,
    "wrapper": model_types.wrapper_types,
    "open_wrapper": model_types.open_wrapper_types,
    "encoder_decoder": model_types.encoder_decoder_types,
}
_ABOUT = {"causal": "Causal language models", "wrapper": "Models that also see or hear, as text"}
_HEAD = """# Models

Every type of model in transformers {version} whose config knows experts, tried by
`python -m benchmarks.models`: a tiny model of random weights, vectors too, in float32. *Served* means that
logits are within 1e-4 of those of transformers' own forward and greedy tokens the same: batched, in chunks, preempted
and resumed, and with a prefix reused. *Untried* means that the benchmark has no tiny config of the type.
[Formats of weights](formats.md) are apart from that."""
LIMITS = {"causal_served": 55, "wrapper_served": 12, "wrong": 0}
SERVED, REFUSED, WRONG, UNTRIED = "served", "refused", "wrong", "untried"


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a type."""

    model_type: str
    kind: str
    verdict: str
    detail: str


def tried(model_type: str, kind: str) -> Row:
    """Serve a tiny model of the type, and compare what comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            reference = save_tiny(model_type, Path(folder, "model"))
        except Exception as error:  # noqa: BLE001 - the config of the type wants sizes that the tiny ones lack
            return Row(model_type, kind, UNTRIED, f"no tiny model: {brief(error)}")
        try:
            return Row(model_type, kind, SERVED, checked(reference, Path(folder)))
        except UserError as refusal:
            return Row(model_type, kind, REFUSED, str(refusal).replace(folder, ""))
        except AssertionError as error:
            place = traceback.extract_tb(error.__traceback__)
            lines = [frame.line or "" for frame in place if "assert" in (frame.line or "")]
            return Row(model_type, kind, WRONG, f"{error or lines[-1]}")
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is what this is to find
            return Row(model_type, kind, WRONG, f"{type(error).__name__}: {brief(error)}")


def checked(reference: transformers.PreTrainedModel, folder: Path) -> str:
    """The largest difference of a logit, as text. Raises `AssertionError` if something differs."""
    plan = make_plan(resolve(str(folder / "model")), 3)
    model = load_model(plan, InProcessPlatform(), folder)
    told = rehearse(plan.architecture, plan.dtype)
    assert told.layers == model.state_spec.layers, "a rehearsal tells of another state than the model has"
    worst = worst_difference(model, reference, steps=4)
    assert worst < TOLERANCE, f"logits differ by {worst:.2g}"
    checkpoint = Checkpoint(folder, reference, [reference_tokens(reference, prompt) for prompt in PROMPTS])
    assert greedy_tokens(model) == checkpoint.greedy, "greedy tokens differ"
    assert greedy_tokens(model, max_step_tokens=4) == checkpoint.greedy, "greedy tokens differ, in chunks"
    assert_preemption_changes_nothing(model, checkpoint)
    reused, whole = assert_reuse_changes_nothing(model, checkpoint)
    return f"{worst:.1e}{'' if reused < whole else ', no prefix of so few tokens is reused'}"


def shown(rows: Sequence[Row], console: Console) -> None:
    """Print a table."""
    table = Table(
        "type", "kind", "", "largest difference, or reason", title=f"transformers {transformers.__version__}"
    )
    colours = {SERVED: "green", REFUSED: "yellow", WRONG: "red", UNTRIED: "red"}
    for row in rows:
        table.add_row(row.model_type, row.kind, f"[{colours[row.verdict]}]{row.verdict}[/]", row.detail)
    console.print(table)


def documented(rows: Sequence[Row]) -> str:
    """The page docs/models.md."""
    lines = [_HEAD.format(version=transformers.__version__)]
    for kind, about in _ABOUT.items():
        its = [row for row in rows if row.kind == kind]
        served = sum(row.verdict == SERVED for row in its)
        lines += [
            f"\n## {about}\n\n{served} of {len(its)} are served.\n\n| type | | why not |\n| --- | --- | --- |"
        ]
        for row in its:
            why = "" if row.verdict == SERVED else row.detail.replace("|", "/")
            lines.append(f"| `{row.model_type}` | {row.verdict} | {why} |")
    return "\n".join(lines) + "\n"


def counted(rows: Sequence[Row]) -> Figures:
    """How many types of each kind there are, and how many are served."""
    figures: Figures = {}
    for kind in dict.fromkeys(row.kind for row in rows):
        its = [row for row in rows if row.kind == kind]
        figures[f"{kind}_types"] = len(its)
        figures[f"{kind}_served"] = sum(row.verdict == SERVED for row in its)
    figures["untried"] = sum(row.verdict == UNTRIED for row in rows)
    figures["wrong"] = sum(row.verdict == WRONG for row in rows)
    return figures


def main() -> None:
    """Try the types named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="such as qwen3_moe; all by default")
    parser.add_argument("--kind", choices=KINDS, action="append", help="all by default")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--document", action="store_true", help="write docs/models.md, of causal types and wrappers"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    console, rows = Console(), []
    for kind in args.kind or KINDS:
        for name in KINDS[kind]():
            if not args.types or name in args.types:
                rows.append(tried(name, kind))
                console.print(f"{name}: {rows[-1].verdict}", highlight=False)
    shown(rows, console)
    if args.document:
        (Path(__file__).parents[1] / "docs" / "models.md").write_text(documented(rows))
    limits = {} if args.types else LIMITS
    report(counted(rows), limits, args.json, at_least=[name for name in LIMITS if name.endswith("served")])


if __name__ == "__main__":
    main()
