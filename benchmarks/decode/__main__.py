"""Tokens per second against transformers and llama.cpp on the same weights, and where the time of a step goes.

Takes turns with each peer, round after round. Needs `pip install gguf llama-cpp-python` (built for this CPU, as pip
does) and 35 GB of disk in --folder, where the models (Qwen1.5-MoE-A2.7B's geometry, 4 layers; gpt-oss-20b's experts, 2)
and llama.cpp's copies of them are kept for the next time. Prints the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.decode.limits import against_limits
from benchmarks.decode.models import make, read_again
from benchmarks.decode.peers import against_llamacpp, against_mxfp4, against_q4, against_q8, against_transformers
from benchmarks.decode.steps import PHASES, step_overhead, where_time_goes
from benchmarks.figures import Figures, report

LIMITS = {
    "decode_vs_llamacpp": 0.97,
    "batch8_vs_llamacpp": 1.1,
    "prefill512_vs_llamacpp": 1.1,
    "decode_int8_vs_llamacpp_q8": 1.0,
    "decode_int4_vs_llamacpp_q4": 1.0,
    "batch8_int4_vs_llamacpp_q4": 1.1,
    "prefill512_int4_vs_llamacpp_q4": 1.0,
    "decode_int4_vs_llamacpp_mxfp4": 1.0,
    "decode_bandwidth_share": 0.92,
    "prefill_flops_share": 0.8,
    "faas_overhead_percent": 8.0,
    "step_overhead_ms": 4.0,
}
AT_MOST = {"faas_overhead_percent", "step_overhead_ms"}

WHAT = {"decode": "one sequence", "batch8": "eight sequences, in all", "prefill512": "a prompt of 512 tokens"}
# by what names of figures call the weights: what a row calls them, our figure and the peer's figure for a task
WEIGHTS = {
    "": ("bfloat16", "_ours", "_llamacpp"),
    "int8 q8": ("int8 and Q8_0", "_int8_beside_q8", "_llamacpp_q8"),
    "int4 q4": ("int4 and Q4_K_M", "_int4_beside_q4", "_llamacpp_q4"),
    "int4 mxfp4": ("gpt-oss' experts, int4 and MXFP4", "_int4_beside_mxfp4", "_llamacpp_mxfp4"),
}
PARTS = {
    "transformers": against_transformers,
    "llamacpp": against_llamacpp,
    "q8": against_q8,
    "q4": against_q4,
    "mxfp4": against_mxfp4,
    "limits": against_limits,
    "steps": where_time_goes,
    "overhead": step_overhead,
}


def tables(figures: Figures) -> str:
    """What was measured, as docs/performance.md has it."""
    lines = ["| tokens/s | ours | peer | ratio | must reach |", "| --- | --- | --- | --- | --- |"]
    if "decode_vs_transformers" in figures:
        own, other = figures["ours_beside_transformers_tokens_s"], figures["transformers_tokens_s"]
        lines.append(f"| one sequence, bfloat16 | {own:.1f} | transformers {other:.1f} | {own / other:.2f} |  |")
    for names, (weights, mine, peer) in WEIGHTS.items():
        own_format, _, short = names.partition(" ")
        for task, what in WHAT.items():
            ratio = f"{task}_{own_format}_vs_llamacpp_{short}" if names else f"{task}_vs_llamacpp"
            if ratio in figures:
                own, other = figures[f"{task}{mine}_tokens_s"], figures[f"{task}{peer}_tokens_s"]
                lines.append(
                    f"| {what}, {weights} | {own:.1f} | llama.cpp {other:.1f} | {figures[ratio]:.2f} "
                    f"| {LIMITS.get(ratio, '')} |"
                )
    lines += ["", "| ms a step | one sequence | eight | 24 tiny layers, 16 |", "| --- | --- | --- | --- |"]
    for phase in PHASES.values():
        its = [figures.get(f"{kind}_{phase}_ms") for kind in ("step", "step8", "tiny")]
        lines.append(f"| {phase} | " + " | ".join("" if ms is None else f"{ms:.2f}" for ms in its) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/faasmoe/benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    folder = make(args.folder / "qwen1.5-moe-a2.7b-4", "--layers", "4")
    figures: Figures = {}
    try:
        for part in args.only:
            read_again([*args.folder.glob("*/*.safetensors"), *args.folder.glob("*.gguf")])
            figures |= PARTS[part](folder, args.rounds)
    finally:  # parts take minutes: what one has measured is told if the next one fails
        report(figures, LIMITS, args.json, at_least=LIMITS.keys() - AT_MOST)
        print(tables(figures))


if __name__ == "__main__":
    main()
