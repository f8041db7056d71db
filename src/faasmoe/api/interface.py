"""The interface that an API's folder implements: endpoints, streams, whole responses, errors and headers.

The core calls it and knows the words of no API. None of it imports FastAPI: the readers' processes use it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.parsed_request import Bounds, EndpointName, Own, ParsedRequest, ReaderAnswer
from faasmoe.api.response_store import ResponseStore
from faasmoe.protocol.request import Piece

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An error as every API can tell it: the HTTP status, and a message that clients may read."""

    status: int
    message: str
    param: str | None = None  # the field of the body
    code: str | None = None  # such as `model_not_found`; None if the status says all
    limit: str | None = None  # the limit that was reached: `requests`, `tokens`, `budget` or `keys`
    retry_after: int | None = None  # seconds
    request_id: str | None = None  # of the request that it is about
    retry: bool = True  # False: the same request can never be taken, or not soon


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of all responses to one request."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of those of the prompts, found in the prefix cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Generic[Own]):
    """The facts about a response that are known before its first piece."""

    id: str
    created: int  # seconds since the epoch
    model: str
    prompt_tokens: int
    parsed: ParsedRequest[Own]
    tenant: str = ""


class RateLimit(Protocol):
    """One limit of a tenant, and how much of it is left."""

    @property
    def kind(self) -> str:
        """`requests` or `tokens`."""

    @property
    def limit(self) -> int:
        """Requests or tokens a minute."""

    @property
    def remaining(self) -> int:
        """Requests or tokens that are left."""

    @property
    def reset(self) -> float:
        """Seconds until the whole limit is available again."""


class ResponseStream(Protocol):
    """Turns pieces into an API's events, as bytes of server-sent events. One for each request."""

    def begin(self) -> bytes:
        """Events before the first piece; empty for none."""

    def piece(self, index: int, piece: Piece) -> bytes:
        """Events for a piece of response `index`."""

    def keep_alive(self, awaited: str) -> bytes:
        """A comment or an event that clients skip, sent after seconds of silence, also before `begin`; empty for none.

        `awaited` is one line of plain text about what the client waits for.
        """

    def end(self, usage: Usage) -> bytes:
        """Events after the last piece of the last response."""

    def error(self, error: ErrorInfo) -> bytes:
        """The last event of a stream that fails."""


class WholeResponse(Protocol):
    """Collects pieces into one body of JSON. One for each request."""

    def piece(self, index: int, piece: Piece) -> None:
        """Take a piece of response `index`."""

    def body(self, usage: Usage) -> bytes:
        """The JSON, after all pieces."""


class Endpoint(Protocol[Own]):
    """A route that takes a body by POST and generates."""

    @property
    def name(self) -> EndpointName:
        """Its name among the endpoints of all APIs; the operation's id in the OpenAPI document begins with it."""

    @property
    def path(self) -> str:
        """The route."""

    @property
    def id_prefix(self) -> str:
        """The beginning of its responses' ids, before a hyphen."""

    @property
    def schema(self) -> type[BaseModel]:
        """The pydantic model of its bodies; it has a field `model`."""

    @property
    def own(self) -> type[Own]:
        """The dataclass of `ParsedRequest.own`: the fields of the body that only its responses need."""

    @property
    def store(self) -> ResponseStore | None:
        """Where it keeps responses that clients may ask for by their ids; None if it keeps none."""

    def recalled(self, body: bytes, tenant: str) -> bytes:
        """The body with what it refers to of the tenant's earlier responses. Raises `RequestError`. Must be quick."""

    def read(self, body: Any, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[Own]:
        """Parse a validated body. Raises `RequestError`."""

    def stream(self, head: Head[Own]) -> ResponseStream:
        """The stream of one request."""

    def whole(self, head: Head[Own]) -> WholeResponse:
        """The whole response of one request."""


class WithoutStore:
    """An endpoint whose bodies stand for themselves."""

    store: ResponseStore | None = None

    def recalled(self, body: bytes, _: str) -> bytes:
        """The body."""
        return body


class ReaderRoute(Protocol):
    """A route that takes a body by POST and that a reader answers by itself, such as a count of tokens."""

    @property
    def name(self) -> EndpointName:
        """Its name among the endpoints of all APIs."""

    @property
    def path(self) -> str:
        """The route."""

    @property
    def schema(self) -> type[BaseModel]:
        """The pydantic model of its bodies; it has a field `model`."""

    def read(self, body: Any, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[ReaderAnswer]:
        """Parse a validated body, and answer it. Raises `RequestError`."""


class Routes(Protocol):
    """The part of the application to which an API adds routes of its own."""

    def get(self, path: str) -> Callable[[F], F]:
        """Decorate the function that handles GET requests to `path`."""

    def post(self, path: str) -> Callable[[F], F]:
        """Decorate the function that handles POST requests to `path`."""


class API(Protocol):
    """One API: its endpoints, and its shape of keys, limits and errors."""

    @property
    def paths(self) -> Sequence[str]:
        """Prefixes of the paths that belong to it. A request belongs to the API with the longest prefix of its path."""

    @property
    def endpoints(self) -> Sequence[Endpoint[Any]]:
        """The endpoints that generate."""

    @property
    def reader_routes(self) -> Sequence[ReaderRoute]:
        """The routes that readers answer."""

    def add_routes(self, routes: Routes, bounds: Bounds, created: int) -> None:
        """Add routes that generate nothing. `created` is the server's start in seconds since the epoch."""

    @property
    def key_form(self) -> str:
        """The header that carries a key, as error messages show it, such as `x-api-key: KEY`."""

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The API key in a request's headers, whose names are matched in any case; None if there is none."""

    def rate_headers(self, limits: Sequence[RateLimit]) -> Mapping[str, str]:
        """Response headers with the tenant's limits and what is left of them."""

    def error_body(self, error: ErrorInfo) -> Mapping[str, Any]:
        """The body of an error response, for JSON."""

    def error_headers(self, error: ErrorInfo) -> Mapping[str, str]:
        """Headers of an error response besides `Retry-After`."""
