"""The OpenAPI description of bodies that are read elsewhere than in FastAPI."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from faasmoe.api.openai.responses import CHAT, COMPLETION
from faasmoe.api.openai.schema import ChatBody, CompletionBody

_BODIES = {COMPLETION.path: CompletionBody, CHAT.path: ChatBody}
_REFERENCE = "#/components/schemas/{model}"


def describe_bodies(app: FastAPI) -> None:
    """Have `/openapi.json` of `app` tell which bodies its routes take, as FastAPI's documentation has it."""
    written = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = written()
            models = [(body, "validation") for body in _BODIES.values()]
            _, schemas = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            for path, body in _BODIES.items():
                schema = {"$ref": _REFERENCE.format(model=body.__name__)}
                content = {"application/json": {"schema": schema}}
                document["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
