"""The Responses API: its paths lie below those of OpenAI's other routes, whose keys, limits and errors it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from faasmoe.api.interface import Endpoint, ReaderRoute, Routes
from faasmoe.api.openai.api import OpenAI
from faasmoe.api.parsed_request import Bounds
from faasmoe.api.responses.endpoints import Responses


class ResponsesAPI(OpenAI):
    """POST /v1/responses, and the responses that are kept."""

    paths: Sequence[str] = ("/v1/responses",)
    endpoints: Sequence[Endpoint[Any]] = (Responses(),)
    reader_routes: Sequence[ReaderRoute] = ()

    def add_routes(self, routes: Routes, bounds: Bounds, created: int) -> None:
        """None beside those of its endpoint."""


RESPONSES = ResponsesAPI()
