"""A platform without processes that remembers what was deployed and called."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faasmoe.platforms.base import Call, FunctionSpec, Replies
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.inline.platform import InlinePlatform


class InProcessPlatform(InlinePlatform):
    """For tests of what uses a platform."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.specs: list[FunctionSpec] = []

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        self.specs += specs
        super().deploy(specs)

    def invoke_many(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        self.calls += [call.function for call in calls]
        return super().invoke_many(calls, deadline, shared, meanwhile)
