"""A soak with kills of nodes: what tenants pay, against what nodes have metered.

python -m tests.chaos.bills --kills 10 --every 30
"""

from __future__ import annotations

import argparse
import queue
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.model.synthesis.synthesis import _byte_tokenizer
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.registry import start
from faasmoe.protocol.request import GenerationRequest, Piece, ResourceUsage, SamplingParams
from faasmoe.tenancy.ledger.idle_cost import IdleShares
from tests import nodes
from tests.tiny import save_tiny
from tests.waiting import wait_until

TENANTS = "abc"
TOKENS = 80  # of each answer


@dataclass(frozen=True, kw_only=True)
class Bills:
    """Sums over all tenants, and those of the nodes' meters."""

    requests: int
    failed: int
    invocations: float
    metered_invocations: float
    gb_seconds: float  # of calls
    metered_gb_seconds: float
    paid: float  # GB-seconds, overhead included
    lived: float  # of all instances

    @property
    def lost(self) -> float:
        """Calls that tenants pay and no meter has: a node was killed between its reply and its report."""
        return self.invocations - self.metered_invocations

    def off(self) -> float:
        """The largest relative difference."""
        pairs = (
            (self.invocations, self.metered_invocations),
            (self.gb_seconds, self.metered_gb_seconds),
            (self.paid, self.lived),
        )
        return max(abs(paid / metered - 1) for paid, metered in pairs)


@dataclass
class Soak:
    """A model on two nodes, the first of which is killed and started again in turns."""

    folder: Path
    runtime: Runtime
    agents: list[nodes.Agent]
    stack: ExitStack  # of agents that are started again
    used: list[ResourceUsage] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    pieces: queue.SimpleQueue[tuple[str, Piece]] = field(default_factory=queue.SimpleQueue)

    @property
    def platform(self) -> ClusterPlatform:
        platform = self.runtime.platform
        assert isinstance(platform, ClusterPlatform)
        return platform

    def wave(self, kill: bool) -> None:
        """A request of each tenant, and in the middle of them a node is killed, if so wanted."""
        left = set(TENANTS)
        for i, name in enumerate(TENANTS):
            params = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True)
            request = GenerationRequest(name, tuple(range(1 + 9 * i)), params, tenant=name)
            self.runtime.engine.submit(request, lambda piece, name=name: self.pieces.put((name, piece)))  # type: ignore[misc]
        read = 0
        while left:
            name, piece = self.pieces.get(timeout=60)
            read += 1
            if piece.last:
                left.discard(name)
                self.reasons.append(piece.finish_reason)
                self.used += [piece.used] if piece.used else []
            if read == TOKENS // 4 and kill:
                self.kill()
        if kill:
            self.start_again()

    def kill(self) -> None:
        """Just after a heartbeat: what a node does after its last one, for 0.25 s at most, nobody can know."""
        victim, membership = self.agents[0], self.platform.membership
        (link,) = [link for link in membership.links if str(link.address) == victim.address]
        beat = membership.meters.beats(link.incarnation)
        while membership.meters.beats(link.incarnation) == beat:
            time.sleep(0.001)
        victim.process.kill()
        victim.process.wait()

    def start_again(self) -> None:
        """The node that was killed comes back, the other one is the next; then all functions have replicas."""
        victim, other = self.agents
        again = self.stack.enter_context(nodes.agent(self.folder, victim.name, listen=victim.address))
        self.agents = [other, again]
        assert wait_until(lambda: len(self.platform.membership.ready()) == 2)
        hosts = self.platform.membership.hosts
        self.platform.membership.route(dict.fromkeys(hosts, (other.name, victim.name)))

    def bills(self) -> Bills:
        """What it has come to."""
        totals = self.platform.status().totals
        shares = IdleShares()
        shares.note(self.runtime.engine.take_busy())
        gb_seconds = sum(each.gb_seconds for each in self.used)
        return Bills(
            requests=len(self.reasons),
            failed=sum(reason != "length" for reason in self.reasons),
            invocations=sum(each.invocations for each in self.used),
            metered_invocations=totals.invocations,
            gb_seconds=gb_seconds,
            metered_gb_seconds=totals.busy_gb_seconds,
            paid=gb_seconds + sum(shares.split(totals.instance_gb_seconds).values()),
            lived=totals.instance_gb_seconds,
        )


@contextmanager
def soaking(folder: Path) -> Iterator[Soak]:
    """All that a soak needs, in a folder for it alone."""
    save_tiny("qwen2_moe", folder / "tiny", vocab_size=257, eos_token_id=256)
    _byte_tokenizer().save_pretrained(folder / "tiny")
    plan = make_plan(resolve(str(folder / "tiny")), 4)
    options = nodes.options(folder)
    with (
        nodes.cluster(folder) as agents,
        ExitStack() as stack,
        Runtime(plan, lambda: start("nodes", PRELOAD, **options), 128) as runtime,  # type: ignore[arg-type]
    ):
        yield Soak(folder, runtime, list(agents), stack)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between kills")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, soaking(Path(name)) as soak:
        for _ in range(options.kills):
            until = time.monotonic() + options.every
            while time.monotonic() < until:
                soak.wave(kill=False)
            soak.wave(kill=True)
        bills = soak.bills()
    for figure, value in asdict(bills).items():
        print(f"{figure:20} {value:.6g}")
    print(f"{'off':20} {bills.off():.2%}")


if __name__ == "__main__":
    main()
