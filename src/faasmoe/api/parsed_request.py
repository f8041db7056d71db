"""Requests whose bodies have been parsed, and the bounds that they are checked against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from faasmoe.errors import MessageError, RequestError
from faasmoe.protocol.request import SamplingParams

EndpointName = str  # name of an API's endpoint
Own = TypeVar("Own")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EndUser:
    """For whom a tenant asks, in the tenant's words: the ledger keeps it, and nothing else looks at it."""

    name: str = ""  # empty: the tenant does not say
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRequest(Generic[Own]):
    """A request whose body has been parsed, checked and tokenized. Plain fields only: it travels between processes."""

    prompts: tuple[tuple[int, ...], ...]  # token ids, each of which the model has
    params: SamplingParams
    choices: int = 1  # responses to each prompt
    limited: bool = True  # the body states `max_tokens`
    stream: bool = False
    priority: int = 0  # within the tenant
    end_user: EndUser = field(default_factory=EndUser)
    ignored: tuple[str, ...] = ()  # fields of the body that no API knows
    own: Own  # the API's own fields: what its responses need to know of the body

    def typed(self, own: type[T]) -> ParsedRequest[T]:
        """The same request with `own` as an instance of this dataclass: from another process it arrives as a dict.

        Raises `MessageError` if the fields are not those of the dataclass.
        """
        try:
            return replace(self, own=msgspec.convert(self.own, own))  # type: ignore[arg-type, return-value]
        except msgspec.ValidationError as error:
            raise MessageError(f"a parsed request with other fields than {own.__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Bounds:
    """The model's name and sizes, which bodies are checked against."""

    model: str  # the name that the model is served under
    vocabulary: int  # ids that it has embeddings for
    max_model_len: int  # tokens of prompt and response together
    aliases: tuple[str, ...] = ()  # other names of the model
    defaults: dict[str, float] = field(
        default_factory=dict
    )  # of fields of `SamplingParams` that a body leaves out
    ignore_unknown: bool = False  # fields that no API knows are ignored

    def check_model(self, name: str) -> None:
        """Raises `RequestError` if `name` is another model's."""
        if name != self.model and name not in self.aliases:
            raise RequestError(
                f"the model {name!r} does not exist; this server has {self.model!r}",
                param="model",
                code="model_not_found",
            )


@dataclass(frozen=True, slots=True)
class ReaderAnswer:
    """The `own` of a request that a reader answers by itself."""

    fields: dict[str, Any]  # of the response, for JSON


def answered(fields: dict[str, Any]) -> ParsedRequest[ReaderAnswer]:
    """A request that a reader has answered."""
    return ParsedRequest(prompts=(), params=SamplingParams(), own=ReaderAnswer(fields))


class BodyReader(Protocol):
    """Parses bodies outside the caller's event loop."""

    async def read(self, endpoint: EndpointName, tenant: str, body: bytes) -> ParsedRequest[Any]:
        """Parse `body`, which was sent to `endpoint`. The result's `own` may be a dict: see `ParsedRequest.typed`.

        Raises `RequestError` if the body is refused, `EngineBusy` if too many bodies of this tenant or of all tenants
        wait, or `EngineStopped` if no body can be read now.
        """
