"""Train the small Qwen2-MoE that FaaSMoE serves when it is given no model.

The corpus is a folder of `DOMAIN.txt.xz` files. The last 2 % of every domain are held out. Each batch draws
a domain with probability proportional to the square root of its size, so that a large domain does not
drown the others. Training runs in bfloat16 autocast on whatever device is there, for a given wall time:
warm-up over 2 % of it, then a cosine down to nothing.

    python examples/train_demo_model.py --corpus CORPUS --out demo-model --minutes 70
    python examples/train_demo_model.py --corpus CORPUS --out better --init demo-model --minutes 100

Needs torch, transformers, numpy. Writes a Hugging Face checkpoint and metrics.json.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import pathlib
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2MoeConfig, Qwen2MoeForCausalLM

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
HELD_OUT = 0.02
EVALUATION_WINDOW = 256  # tokens of context when bits per byte are measured


class Domain:
    """Token ids of one domain: what is trained on, what is held out, and the held-out bytes."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        cut = int(len(text) * (1 - HELD_OUT))
        self.train = encode(tokenizer, text[:cut])
        self.held_out = encode(tokenizer, text[cut:])
        self.held_out_bytes = len(text[cut:].encode())


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    lines = tokenizer.encode_batch(text.splitlines(keepends=True))
    return np.concatenate([np.array(line.ids, dtype=np.uint16) for line in lines])


def read_corpus(folder: pathlib.Path) -> dict[str, str]:
    """Text by domain."""
    texts = {}
    for path in sorted(folder.glob("*.txt.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as stream:
            texts[path.name.removesuffix(".txt.xz")] = stream.read()
    return texts


def train_tokenizer(texts: dict[str, str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE learned from the training part of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    lines = (
        line
        for text in texts.values()
        for line in text[: int(len(text) * (1 - HELD_OUT))].splitlines(keepends=True)
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def new_model(vocab_size: int) -> Qwen2MoeForCausalLM:
    """Qwen1.5-MoE-A2.7B in everything that routing depends on, and small in all else."""
    config = Qwen2MoeConfig(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        num_experts=60,
        num_experts_per_tok=4,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=256,
        norm_topk_prob=False,
        tie_word_embeddings=True,
        router_aux_loss_coef=0.01,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return Qwen2MoeForCausalLM(config)


def batches(domains: dict[str, Domain], batch: int, window: int) -> Iterator[torch.Tensor]:
    """Endless `[batch, window]` int64 token ids."""
    rng = np.random.default_rng(int(time.time()))
    names = list(domains)
    share = np.sqrt([len(domains[n].train) for n in names])
    while True:
        rows = []
        for name in rng.choice(names, batch, p=share / share.sum()):
            ids = domains[name].train
            start = rng.integers(0, len(ids) - window)
            rows.append(ids[start : start + window].astype(np.int64))
        yield torch.from_numpy(np.stack(rows))


def rate(done: float) -> float:
    """Factor on the learning rate after the fraction `done` of the time."""
    return min(1.0, done / 0.02 + 0.01) * 0.5 * (1 + math.cos(math.pi * done))


def optimizer(model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def train(model: Qwen2MoeForCausalLM, domains: dict[str, Domain], options: argparse.Namespace) -> int:
    """Returns how many tokens were seen."""
    device = model.device.type
    model.config.output_router_logits = True  # adds the load-balancing loss
    model.set_experts_implementation("grouped_mm")
    adam = optimizer(model, options.lr)
    start, seen, smooth = time.monotonic(), 0, math.nan
    for step, ids in enumerate(batches(domains, options.batch, options.window), 1):
        done = (time.monotonic() - start) / (options.minutes * 60)
        if done >= 1:
            break
        for group in adam.param_groups:
            group["lr"] = options.lr * rate(done)
        row = ids.to(device)
        with torch.autocast(device, torch.bfloat16):
            loss = model(row, labels=row).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        seen += ids.numel()
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"{done:5.1%}  step {step}  {seen / 1e6:.2f} M tokens  loss {smooth:.3f}", flush=True)
    model.config.output_router_logits = False
    return seen


@torch.inference_mode()
def bits_per_byte(model: Qwen2MoeForCausalLM, domain: Domain) -> float:
    """Held-out cross entropy in bits, over the bytes of the text (so that tokenizers compare)."""
    nats, ids = 0.0, torch.from_numpy(domain.held_out.astype(np.int64)).to(model.device)
    for start in range(0, len(ids) - 1, EVALUATION_WINDOW):
        window = ids[start : start + EVALUATION_WINDOW + 1]
        logits = model(window[None, :-1]).logits[0].float()
        nats += cross_entropy(logits, window[1:], reduction="sum").item()
    return nats / math.log(2) / domain.held_out_bytes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="folder of DOMAIN.txt.xz")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--init", type=pathlib.Path, help="continue this checkpoint, with its tokenizer")
    parser.add_argument("--minutes", type=float, default=70, help="wall time of the training loop")
    parser.add_argument("--batch", type=int, default=16, help="sequences a step")
    parser.add_argument("--window", type=int, default=256, help="tokens a sequence")
    parser.add_argument("--lr", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--vocab", type=int, default=4096, help="size of a new tokenizer")
    return parser.parse_args()


def main() -> None:
    options = parse()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = read_corpus(options.corpus)
    if options.init:
        tokenizer = Tokenizer.from_file(str(options.init / "tokenizer.json"))
        model = Qwen2MoeForCausalLM.from_pretrained(options.init, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(texts, options.vocab)
        model = new_model(options.vocab)
    domains = {name: Domain(text, tokenizer) for name, text in texts.items()}
    model.to(device).train()

    seen = train(model, domains, options)

    model.eval().to(torch.bfloat16)  # measure what is shipped
    held_out = {name: round(bits_per_byte(model, domain), 3) for name, domain in domains.items()}
    model.save_pretrained(options.out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END
    ).save_pretrained(options.out)
    metrics = {
        "held_out_bits_per_byte": held_out,
        "tokens": seen,
        "minutes": options.minutes,
        "device": device,
    }
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
