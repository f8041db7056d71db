"""Does a layer with latents decode no slower than with the keys and values that are made of them?

One token of one sequence after a context, in one layer in bfloat16, on one thread: absorbed over latents, beside all
heads' keys and values as kept, with the product that makes the new token's. Prints the milliseconds of both, the median
over rounds that alternate, and the bytes that a token takes. A layer's state and weights are larger than the caches or
copied until they are, as those of other layers come in between.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.figures import Figures, report
from faasmoe.model.dense import heads
from faasmoe.model.dense.decode_kernel import Rule
from faasmoe.model.dense.heads import PlainHeads
from faasmoe.model.dense.latent.latent_decode import Expansion
from faasmoe.model.dense.latent.latent_heads import LatentHeads
from faasmoe.model.dense.linear.matvec import linear_rows
from faasmoe.model.state.kv_cache import KVCache, KVCacheSpec

RANK, ROPE = 512, 64
SIZES = {  # heads, a key's numbers without a position, a value's numbers
    "deepseek-v2-lite": (16, 128, 128),
    "glm-4.7-flash": (20, 192, 256),
    "deepseek-v3": (128, 128, 128),
}
CACHES = 64 << 20  # bytes: more than those of one layer that stay in a cache


def filled(spec: KVCacheSpec, tokens: int) -> KVCache:
    cache = spec.allocate()
    cache.reserve(tokens + 1)
    cache.append(
        torch.randn(spec.heads, tokens, spec.key_dim, dtype=spec.key_dtype),
        torch.randn(spec.heads, tokens, spec.value_dim, dtype=spec.value_dtype),
    )
    return cache


def steps(name: str, context: int) -> tuple[dict[str, list[Callable[[], object]]], Figures]:
    """What decodes a token, once for each copy of the layer, and the bytes of a token."""
    count, nope, value_dim = SIZES[name]
    dtype, rule = torch.bfloat16, Rule((nope + ROPE) ** -0.5)
    specs = {
        "latent": KVCacheSpec(1, RANK + ROPE, 0, dtype, dtype),
        "expanded": KVCacheSpec(count, nope + ROPE, value_dim, dtype, dtype),
    }
    weights = count * (nope + value_dim) * RANK * 2
    made: dict[str, list[Callable[[], object]]] = {}
    for kind, spec in specs.items():
        copies = 1 + CACHES // (weights + spec.nbytes(context))
        made[kind] = [step(kind, spec, context, rule, (count, nope, value_dim)) for _ in range(copies)]
    return made, {f"{name} {kind} B/token": spec.nbytes(1) for kind, spec in specs.items()}


def step(
    kind: str, spec: KVCacheSpec, context: int, rule: Rule, sizes: tuple[int, int, int]
) -> Callable[[], object]:
    count, nope, value_dim = sizes
    cache = filled(spec, context - 1)
    weight = torch.randn(count, nope + value_dim, RANK).mul_(RANK**-0.5).bfloat16()
    query = torch.randn(1, count, 1, nope + ROPE, dtype=torch.bfloat16)
    latent, rope = torch.randn(1, RANK, dtype=torch.bfloat16), torch.randn(1, 1, 1, ROPE, dtype=torch.bfloat16)
    its = LatentHeads(rule, Expansion(weight, nope, ROPE)) if kind == "latent" else PlainHeads(rule)

    def run() -> object:
        cache.truncate(context - 1)
        if kind == "latent":
            key = torch.cat([latent.view(1, 1, 1, -1), rope], -1)
            return heads.decode([cache.place()], its, query, key, key[..., :0])
        both = linear_rows(latent, weight.flatten(0, 1)).view(1, count, 1, -1)
        key = torch.cat([both[..., :nope], rope.expand(1, count, 1, -1)], -1)
        return heads.decode([cache.place()], its, query, key, both[..., nope:])

    return run


def milliseconds(runs: dict[str, list[Callable[[], object]]], rounds: int) -> dict[str, float]:
    """Of each kind the median of one step."""
    found: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(rounds + 1):
        for kind, copies in runs.items():
            for run in copies:
                before = time.perf_counter()
                run()
                found[kind].append((time.perf_counter() - before) * 1e3)
    return {kind: statistics.median(times[len(runs[kind]) :]) for kind, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, default=4096, help="tokens (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="of each kind (%(default)s)")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    figures: Figures = {}
    limits: dict[str, float] = {}
    for name in SIZES:
        runs, nbytes = steps(name, options.context)
        times = milliseconds(runs, options.rounds)
        figures |= nbytes | {f"{name} {kind} ms": value for kind, value in times.items()}
        limits[f"{name} latent ms"] = times["expanded"]
        limits[f"{name} latent B/token"] = 1.05 * 2 * (RANK + ROPE)
    report(figures, limits, options.json)


if __name__ == "__main__":
    main()
