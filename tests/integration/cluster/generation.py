"""Generations with a tiny model whose functions are on a platform, and something that happens in their middle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from faasmoe.engine.experts.dispatch import Dispatch
from faasmoe.model.dense.attention import Span
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import ModelPlan
from faasmoe.platforms.base import Call, Platform, Replies
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.client.platform import ClusterPlatform

PROMPT = list(range(5, 18))
STEPS = 8
_DEADLINE = 20.0  # seconds for the calls of a layer, whatever happens to a node


class Interfering:
    """A platform that lets things happen when batches of calls have been sent: `acts` by the batch's number, from 1."""

    def __init__(self, platform: Platform, acts: Mapping[int, Callable[[], object]]) -> None:
        self._platform, self._acts, self._sent = platform, acts, 0
        self.capabilities = platform.capabilities

    def invoke_many(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        self._sent += 1
        return self._platform.invoke_many(calls, deadline, shared, self._acts.get(self._sent, meanwhile))


def logits(plan: ModelPlan, platform: Platform) -> torch.Tensor:
    """`[STEPS, vocabulary]`: of a prompt and of the greedy tokens after it."""
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)
    model.start(Dispatch(platform, plan.blocks, _DEADLINE), threads=1)
    state = model.state_spec.allocate()
    state.reserve(len(PROMPT) + STEPS)
    tokens, done, rows = list(PROMPT), 0, []
    for _ in range(STEPS):
        new = tokens[done:]
        positions = list(range(done, len(tokens)))
        rows.append(model.forward(new, positions, [Span(state, len(new))], [len(new) - 1])[0].clone())
        done = len(tokens)
        tokens.append(int(rows[-1].argmax()))
    return torch.stack(rows)


def states(platform: ClusterPlatform) -> dict[str, str]:
    return {link.name: platform.membership.state(link) for link in platform.membership.links}
