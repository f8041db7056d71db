"""What an API's folder implements: endpoints with their bodies, streams, whole responses, errors and headers.

The core calls these and knows no API's words. None of it imports FastAPI: the readers' processes use it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.parsed_request import Bounds, EndpointName, Own, ParsedRequest
from faasmoe.protocol.request import Piece

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as every API can tell it: the HTTP status, and a message that clients may read."""

    status: int
    message: str
    param: str | None = None  # the field of the body
    code: str | None = None  # such as `model_not_found`; None if the status says all
    limit: str | None = None  # the limit that was reached: `requests`, `tokens`, `budget` or `keys`
    retry_after: int | None = None  # seconds
    retry: bool = True  # False: the same request can never be taken, or not soon


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of all responses to one request."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Generic[Own]):
    """What is known of a response before its first piece."""

    id: str
    created: int  # seconds since the epoch
    model: str
    prompt_tokens: int
    parsed: ParsedRequest[Own]


class RateLimit(Protocol):
    """What a tenant has left of one limit."""

    @property
    def kind(self) -> str:
        """`requests` or `tokens`."""

    @property
    def limit(self) -> int:
        """How many a minute."""

    @property
    def remaining(self) -> int:
        """How many are left."""

    @property
    def reset(self) -> float:
        """Seconds until all of it is there again."""


class ResponseStream(Protocol):
    """Turns pieces into an API's events, as bytes of server-sent events. One for each request."""

    def begin(self) -> bytes:
        """Events before the first piece; empty for none."""

    def piece(self, index: int, piece: Piece) -> bytes:
        """Events for a piece of response `index`."""

    def keep_alive(self, awaited: str) -> bytes:
        """A comment or an event that clients skip; empty for none. `awaited` says in a line what the client waits for.

        It is sent after some seconds of silence, which may be before `begin`.
        """

    def end(self, usage: Usage) -> bytes:
        """Events after the last piece of all responses."""

    def error(self, failure: Failure) -> bytes:
        """The event that ends a stream which has failed."""


class WholeResponse(Protocol):
    """Collects pieces into one body of JSON. One for each request."""

    def piece(self, index: int, piece: Piece) -> None:
        """Take a piece of response `index`."""

    def body(self, usage: Usage) -> bytes:
        """The JSON, after all pieces."""


class Endpoint(Protocol[Own]):
    """A route to which bodies are posted that ask for a generation."""

    @property
    def name(self) -> EndpointName:
        """Its name among the endpoints of all APIs; the operation's id in the OpenAPI document begins with it."""

    @property
    def path(self) -> str:
        """The route."""

    @property
    def id_prefix(self) -> str:
        """Ids of its responses begin with it and a hyphen."""

    @property
    def schema(self) -> type[BaseModel]:
        """The body."""

    @property
    def own(self) -> type[Own]:
        """A dataclass of what its responses need to know of the body; it travels between processes as plain values."""

    def read(self, body: Any, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[Own]:
        """The request in a validated body. Raises `RequestError`."""

    def stream(self, head: Head[Own]) -> ResponseStream:
        """A stream for one request."""

    def whole(self, head: Head[Own]) -> WholeResponse:
        """A whole response for one request."""


class Routes(Protocol):
    """The application, as far as an API adds routes of its own to it."""

    def get(self, path: str) -> Callable[[F], F]:
        """A decorator for the function that answers GET."""


class API(Protocol):
    """One API: everything in front of and around its endpoints."""

    @property
    def paths(self) -> Sequence[str]:
        """Paths that belong to it, with all below them. The longest that fits a request decides."""

    @property
    def endpoints(self) -> Sequence[Endpoint[Any]]:
        """Its endpoints."""

    def add_routes(self, routes: Routes, bounds: Bounds, created: int) -> None:
        """Add routes that run nothing. `created` is when the server started, in seconds since the epoch."""

    @property
    def key_form(self) -> str:
        """The header in which clients send `KEY`, for messages."""

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The key that a request brings; names of `headers` are matched in any case."""

    def rate_headers(self, limits: Sequence[RateLimit]) -> Mapping[str, str]:
        """Headers that tell what is left of limits."""

    def error_body(self, failure: Failure) -> Mapping[str, Any]:
        """The JSON of an error."""

    def error_headers(self, failure: Failure) -> Mapping[str, str]:
        """Headers of an error, beside `Retry-After`."""
