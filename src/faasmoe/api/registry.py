"""The APIs that the gateway serves."""

from __future__ import annotations

from typing import Any

from faasmoe.api.anthropic.api import ANTHROPIC
from faasmoe.api.interface import API, Endpoint, ReaderRoute
from faasmoe.api.openai.api import OPENAI
from faasmoe.api.parsed_request import EndpointName
from faasmoe.api.responses.api import RESPONSES


class Registry:
    """APIs by path, and their endpoints by name. Outside all APIs' paths errors have the first one's shape."""

    def __init__(self, *apis: API) -> None:
        self.apis = apis
        self._paths = sorted(((path, api) for api in apis for path in api.paths), key=lambda each: -len(each[0]))
        self._endpoints: dict[EndpointName, Endpoint[Any] | ReaderRoute] = {}
        for api in apis:
            self._endpoints |= {endpoint.name: endpoint for endpoint in api.endpoints}
            self._endpoints |= {route.name: route for route in api.reader_routes}

    def of(self, path: str) -> API | None:
        """The API that a path belongs to; None for paths like `/metrics`."""
        return next(
            (api for own, api in self._paths if path == own or path.startswith(f"{own.rstrip('/')}/")), None
        )

    def shape(self, path: str) -> API:
        """The API whose shape of keys and errors is used at a path."""
        return self.of(path) or self.apis[0]

    def endpoint(self, name: EndpointName) -> Endpoint[Any] | ReaderRoute:
        """The endpoint or reader's route of this name. Raises `KeyError`."""
        return self._endpoints[name]


APIS = Registry(OPENAI, RESPONSES, ANTHROPIC)
