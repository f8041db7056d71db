"""Frames and bytes of a layer whose experts are on two nodes, beside the least that replies by block need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.cluster.nodes import cluster, first_core, last_core
from benchmarks.figures import Figures
from benchmarks.platform.blocks import HIDDEN, make_blocks
from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.experts.payload import reply_bytes
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.cluster.client.platform import ClusterPlatform

EXPERTS, TOP_K = 16, 4
SLOT, ROW = 12, 4  # bytes of a slot, and of a row's number


def measure_traffic(folder: Path) -> Figures:
    """Of one token, and of 512."""
    blocks = make_blocks(folder, EXPERTS, block_size=2)
    figures: Figures = {}
    for tokens in (1, 512):
        with cluster(folder / f"nodes-{tokens}", [first_core(), last_core()]) as its, its.platform() as platform:
            platform.deploy(write_functions(blocks, folder / "artifacts"))
            figures |= _of_layer(platform, blocks, tokens)
    return figures


def _of_layer(platform: ClusterPlatform, blocks: Sequence[Block], tokens: int) -> Figures:
    torch.manual_seed(0)
    index = torch.stack([torch.randperm(EXPERTS)[:TOP_K] for _ in range(tokens)])
    hidden, weight = torch.randn(tokens, HIDDEN).bfloat16(), torch.rand(tokens, TOP_K)
    dispatch = Dispatch(platform, blocks)
    before = {link.name: report.traffic for link, report in platform.orders.reports()}
    dispatch(0, hidden, index, weight)
    after = {link.name: report.traffic for link, report in platform.orders.reports()}
    hosts = platform.membership.hosts
    frames = max(after[node].frames - before[node].frames for node in after)
    seen = sum(after[n].received + after[n].sent - before[n].received - before[n].sent for n in after)
    by_block = by_node = least = 0
    for node in after:
        its = {e for b in blocks if node in hosts[b.name] for e in b.artifact.experts}
        rows = sum(bool(its & set(row.tolist())) for row in index)
        least += rows * HIDDEN * hidden.element_size()
        by_node += reply_bytes(rows, HIDDEN) if rows else 0
    for block in blocks:
        rows = sum(bool(set(block.artifact.experts) & set(row.tolist())) for row in index)
        by_block += reply_bytes(rows, HIDDEN) if rows else 0
        least += rows * ROW
    least += index.numel() * SLOT
    return {
        "frames_per_node_layer": frames,
        f"bytes_ratio_{tokens}": seen / (least + by_block),
        f"bytes_{tokens}": seen,
        f"reply_bytes_by_block_{tokens}": by_block,
        f"reply_bytes_by_node_{tokens}": by_node,
    }
