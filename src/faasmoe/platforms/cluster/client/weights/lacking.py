"""What nodes have told of weights that they lack, and who is called meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from faasmoe.platforms.cluster.protocol.messages import Failure

_SECONDS = {"failed": 10.0, "under way": 0.25, "elsewhere": 2.0}  # until a node is asked again


class _Answer(NamedTuple):
    until: float  # instant
    failure: Failure


class LackingWeights:
    """For one thread. `clock` is `time.monotonic`, or stands for it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[str, dict[str, _Answer]] = {}  # by function and node
        self._again = 0.0  # instant at which the first of them is too old; 0: what is routed is not what they say

    @property
    def due(self) -> bool:
        """Whether `routed` would give another answer than before. On the path of every call."""
        return bool(self._answers) and self._clock() >= self._again

    def note(self, node: str, failure: Failure) -> None:
        """A node has answered that it lacks the weights of `failure.lacking`."""
        until = self._clock() + _SECONDS.get(failure.error, 0.0)
        for function in failure.lacking:
            self._answers.setdefault(function, {})[node] = _Answer(until, failure)
        self._again = 0.0

    def asked(self, node: str, function: str) -> None:
        """A node was asked to get a function's weights: they are under way there."""
        self.note(
            node, Failure(kind="weights", cause="", function=function, error="under way", lacking=(function,))
        )

    def routed(
        self, hosts: Mapping[str, tuple[str, ...]], ready: Collection[str]
    ) -> Mapping[str, tuple[str, ...]]:
        """Whom to call for each function: those of its hosts that have its weights, or else any `ready` node.

        Another node may have them as it was a host before, or in files of its own.
        """
        now, routed = self._clock(), dict(hosts)
        self._answers = {
            function: its
            for function, answers in self._answers.items()
            if (its := {node: answer for node, answer in answers.items() if answer.until > now})
        }
        self._again = min((a.until for its in self._answers.values() for a in its.values()), default=0.0)
        for function, lacking in self._answers.items():
            if own := hosts.get(function, ()):
                able = [node for node in ready if node not in lacking]
                routed[function] = tuple(node for node in own if node in able) or tuple(able[:1])
        return routed

    def hopeless(self, function: str, ready: Collection[str]) -> tuple[str, Failure] | None:
        """A node and its failure, if all nodes that are `ready` have failed to get the weights."""
        lacking = self._answers.get(function, {})
        failed = [(node, lacking[node].failure) for node in ready if node in lacking]
        if len(failed) == len(ready) and all(failure.error == "failed" for _, failure in failed):
            return failed[0] if failed else None
        return None

    def substitute(self, function: str, hosts: Collection[str], ready: Collection[str]) -> str | None:
        """A node that is to get the weights as all `hosts` have failed to, if there is one that was not asked yet."""
        lacking = self._answers.get(function, {})
        if not all(node in lacking and lacking[node].failure.error == "failed" for node in hosts):
            return None
        return next((n for n in ready if n in lacking and lacking[n].failure.error == "elsewhere"), None)
