"""llama.cpp on the weights of a Qwen2-MoE checkpoint, written as GGUF first. Needs gguf and llama-cpp-python."""

from __future__ import annotations

import sys
from pathlib import Path

import llama_cpp as lib

from benchmarks.peers import Task, Took, answer
from faasmoe.evaluation.strategies.gguf_file import made
from faasmoe.evaluation.strategies.llamacpp import Llama

_MOST_SEQUENCES, _CONTEXT = 8, 8192


def main() -> None:
    folder, kind, threads = sys.argv[1:]
    llama = Llama(made(Path(folder), kind), int(threads), _MOST_SEQUENCES, _CONTEXT)

    def run(task: Task) -> Took:
        return Took(*llama.run(task.sequences, task.prompt, task.tokens, task.seed))

    answer(f"llama-cpp-python {lib.__version__}, {kind}", run)


if __name__ == "__main__":
    main()
