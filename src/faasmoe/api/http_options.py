"""Options of the HTTP API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from faasmoe.api.parsed_request import Bounds
from faasmoe.errors import OptionError
from faasmoe.protocol.config import About

_ORIGIN = re.compile(r"\*|https?://[^/\s]+")
_ROOT = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_MOST_NAMES = 64
_LONGEST_NAME = 1024

UnknownFields = Literal["refuse", "ignore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How the API is reached and what it takes. Raises `OptionError` naming the option that is out of range."""

    names: tuple[
        str, ...
    ] = ()  # under which the model is served; the first is its name in responses. None: its own
    unknown_fields: UnknownFields = "refuse"
    cors_origins: tuple[str, ...] = ()  # web pages of these may call the API; `*` is any
    root_path: str = ""  # under which a proxy serves it

    def __post_init__(self) -> None:
        for name in self.names:
            if not name or len(name) > _LONGEST_NAME:
                raise OptionError(f"--served-model-name {name[:64]!r}: must have 1 to {_LONGEST_NAME} characters")
        if len(self.names) > _MOST_NAMES:
            raise OptionError(f"--served-model-name: {len(self.names)} names; must be {_MOST_NAMES} at most")
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise OptionError(f"--cors-origin {origin}: must be an origin such as https://example.org, or *")
        if not _ROOT.fullmatch(self.root_path):
            raise OptionError(
                f"--root-path {self.root_path}: must be a path such as /llm, without a slash at its end"
            )

    def bounds(self, name: str, about: About) -> Bounds:
        """What bodies are checked against, for a model of this name."""
        first, *aliases = self.names or (name,)
        return Bounds(
            first,
            about.vocabulary,
            about.max_model_len,
            aliases=tuple(aliases),
            defaults=about.sampling,
            ignore_unknown=self.unknown_fields == "ignore",
        )
