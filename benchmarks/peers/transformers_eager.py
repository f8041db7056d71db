"""transformers with the whole model in memory, experts one after the other (its "eager"), all cores."""

from __future__ import annotations

import sys
import time

import torch
import transformers

from benchmarks.peers import Task, Took, answer


def main() -> None:
    (folder,) = sys.argv[1:]
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", experts_implementation="eager"
    ).eval()

    @torch.inference_mode()
    def run(task: Task) -> Took:
        torch.manual_seed(task.seed)
        tokens = torch.randint(model.config.vocab_size, (task.sequences, task.prompt))
        start = time.perf_counter()
        out = model(tokens, use_cache=True, logits_to_keep=1)
        filled = time.perf_counter()
        for _ in range(task.tokens):
            tokens = out.logits[:, -1:].argmax(-1)
            out = model(tokens, past_key_values=out.past_key_values, use_cache=True)
        return Took(filled - start, time.perf_counter() - filled)

    answer(f"transformers {transformers.__version__}", run)


if __name__ == "__main__":
    main()
