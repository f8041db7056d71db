"""What a request asks for, once its body has been read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from faasmoe.errors import RequestError
from faasmoe.protocol.request import SamplingParams

Kind = str  # name of an API's endpoint


@dataclass(frozen=True, slots=True)
class Asked:
    """A body that has been understood and checked. Simple fields only: it travels between processes."""

    prompts: tuple[tuple[int, ...], ...]  # token ids, each of which the model has
    params: SamplingParams
    choices: int = 1  # answers to each prompt
    limited: bool = True  # the client has said how long an answer may be
    stream: bool = False
    include_usage: bool = False  # a stream ends with the usage
    priority: int = 0  # within the tenant
    tier: str | None = None  # what the priority is called, if it was asked for


@dataclass(frozen=True, slots=True)
class Bounds:
    """What bodies are checked against."""

    model: str  # the name that the model is served under
    vocabulary: int  # ids that it has embeddings for
    max_model_len: int  # tokens of prompt and answer together

    def check_model(self, asked: str) -> None:
        """Raises `RequestError` if a client asks for another model."""
        if asked != self.model:
            raise RequestError(
                f"the model {asked!r} does not exist; this server has {self.model!r}",
                param="model",
                code="model_not_found",
            )


class BodyReader(Protocol):
    """Reads bodies somewhere else than in the caller's loop."""

    async def read(self, kind: Kind, tenant: str, body: bytes) -> Asked:
        """What `body` asks for.

        Raises `RequestError` naming what is wrong with it, `EngineBusy` if too many of this tenant's or of all
        tenants' wait, or `EngineStopped` if none can be read now.
        """
