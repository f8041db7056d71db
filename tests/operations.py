"""Operations of an application, as its OpenAPI document names them."""

from __future__ import annotations

from fastapi import FastAPI


def operations_of(app: FastAPI) -> dict[tuple[str, str], str]:
    """Operation ids by method and path. Generated clients name their functions after these."""
    return {
        (method, path): operation["operationId"]
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }
