"""What nodes fetch that do not see the server's files, and how fast: one that joins, and one that is started again.

`python -m benchmarks.cluster.weights`. The server's files lie in its working directory and are named by that
(/proc/self/cwd), so agents, which have others, do not find them. All is on one machine, over loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from tests import nodes

from benchmarks.figures import Figures, report
from benchmarks.platform.blocks import HIDDEN, make_blocks, timed
from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.experts import PRELOAD
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.cluster.protocol.messages import WeightsReport
from faasmoe.platforms.cluster.weights.contents import contents_of
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.registry import start

LIMITS = {"join_bytes_ratio": 1.02, "rejoin_bytes": 0, "join_failed": 0}
EXPERTS, TOP_K, BLOCK = 24, 4, 2
HERE = Path("/proc/self/cwd")
_SECONDS = 300.0  # for all that is waited for


def measure_weights(folder: Path) -> Figures:
    """Figures of a layer of Qwen1.5-MoE's experts, 0.4 GB in blocks of two."""
    with _server(folder / "server"), ExitStack() as stack:
        blocks = make_blocks(HERE, EXPERTS, block_size=BLOCK)
        nbytes = sum(block.artifact.nbytes for block in blocks)
        specs = write_functions(blocks, folder / "artifacts")
        names = [spec.name for spec in specs]
        hashing = timed(lambda: contents_of(specs, DigestBook(folder / "digests")))
        hashed_again = timed(lambda: contents_of(specs, DigestBook(folder / "digests")))

        a = stack.enter_context(nodes.agent(folder, "a", own=folder / "a"))
        (folder / "nodes").write_text(f"{a.address}\n")
        platform = stack.enter_context(start("nodes", PRELOAD, **nodes.options(folder)))
        assert isinstance(platform, ClusterPlatform)
        platform.deploy(specs)
        fetching = timed(lambda: platform.prewarm(names))

        call = _Caller(platform, blocks)
        b = stack.enter_context(nodes.agent(folder, "b", own=folder / "b"))
        (folder / "nodes").write_text(f"{a.address}\n{b.address}\n")
        _call_until(call, lambda: _settled(platform))
        joined = _weights(platform)["b"]
        hosted = sum(each.artifact.nbytes for each in blocks if "b" in platform.membership.hosts[each.name])

        b.process.kill()
        b.process.wait()
        _call_until(call, lambda: len(platform.membership.ready()) == 1)
        stack.enter_context(nodes.agent(folder, "b", own=folder / "b", listen=b.address))
        _call_until(call, lambda: _settled(platform))
        again = _weights(platform)["b"]
    return {
        "join_bytes_ratio": joined.fetched / hosted,
        "rejoin_bytes": again.fetched,
        "join_failed": call.failed,
        "hash_gb_s": nbytes / hashing / 1e9,
        "hash_known_ms": hashed_again * 1e3,
        "fetch_gb_s": nbytes / fetching / 1e9,
        "longest_call_s": call.longest,
    }


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[None]:
    """Have the working directory, and the user's cache, in `folder`."""
    folder.mkdir()
    before = os.environ.get("FAASMOE_CACHE")
    os.environ["FAASMOE_CACHE"] = str(folder / "cache")
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        if before is None:
            del os.environ["FAASMOE_CACHE"]
        else:
            os.environ["FAASMOE_CACHE"] = before


class _Caller:
    """Calls of the layer with one token each."""

    def __init__(self, platform: ClusterPlatform, blocks: list[Block]) -> None:
        self.failed = 0
        self.longest = 0.0  # seconds
        self._dispatch = Dispatch(platform, blocks)

    def __call__(self) -> None:
        hidden, weight = torch.randn(1, HIDDEN).bfloat16(), torch.rand(1, TOP_K)
        began = time.monotonic()
        try:
            self._dispatch(0, hidden, torch.randperm(EXPERTS)[None, :TOP_K], weight)
        except Exception as error:  # noqa: BLE001 - they are what is counted
            print(f"a call failed: {error}")
            self.failed += 1
        self.longest = max(self.longest, time.monotonic() - began)


def _call_until(call: Callable[[], None], condition: Callable[[], bool]) -> None:
    deadline, asked = time.monotonic() + _SECONDS, 0.0
    while time.monotonic() < deadline:
        call()
        if time.monotonic() > asked + 0.25:
            asked = time.monotonic()
            if condition():
                return
    raise TimeoutError("the nodes have not come to rest")


def _weights(platform: ClusterPlatform) -> dict[str, WeightsReport]:
    return {link.name: each.weights for link, each in platform.orders.reports()}


def _settled(platform: ClusterPlatform) -> bool:
    """Whether both nodes are there, share the functions as is planned, and lack none of what they host."""
    hosts = platform.membership.hosts.values()
    shares = [sum(node in its for its in hosts) for node in ("a", "b")]
    reports = _weights(platform)
    lacking = sum(each.lacking for each in reports.values())
    return platform.rebalancer.settled and len(reports) == len(shares) and min(shares) > 0 and not lacking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        report(measure_weights(Path(name)), LIMITS, options.json)


if __name__ == "__main__":
    main()
