"""Parses bodies: JSON, the API's schema, token ids. May take long, and much memory."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from faasmoe.api.bodies.prompts import Encoder, PromptReader
from faasmoe.api.bodies.structure import check_structure
from faasmoe.api.bodies.validation_errors import refusal_of
from faasmoe.api.parsed_request import Bounds, EndpointName, ParsedRequest
from faasmoe.api.registry import APIS, Registry
from faasmoe.errors import RequestError

MOST_PROMPTS = 128  # token ids are counted as if a body had so many prompts that fill the context


class RequestParser:
    """Parses bodies of all APIs for one model, with its tokenizer."""

    def __init__(self, encoder: Encoder, bounds: Bounds, apis: Registry = APIS) -> None:
        self._bounds = bounds
        self._apis = apis
        self._prompts = PromptReader(encoder, bounds.vocabulary, bounds.max_model_len)

    def parse(self, endpoint: EndpointName, body: bytes) -> ParsedRequest[Any]:
        """The request in `body`, which was sent to `endpoint`. Raises `RequestError`."""
        check_structure(body, MOST_PROMPTS * self._bounds.max_model_len)
        value = _parsed(body)
        its = self._apis.endpoint(endpoint)
        valid, ignored = self._valid(its.schema, value)
        self._bounds.check_model(valid.model)
        try:
            parsed = its.read(valid, self._prompts, self._bounds)
        except RecursionError:  # templates and schemas are walked in Python
            raise RequestError("a value of the body lies too deep within lists and objects") from None
        return replace(parsed, ignored=ignored) if ignored else parsed

    def _valid(self, schema: type[BaseModel], value: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
        """The validated body, and the fields that were ignored. Raises `RequestError`."""
        try:
            return schema.model_validate(value), ()
        except ValidationError as error:
            found = error.errors(include_url=False)
        unknown = tuple(str(each["loc"][0]) for each in found if _is_unknown(each))
        if self._bounds.ignore_unknown and len(unknown) == len(found):
            known = {name: field for name, field in value.items() if name not in unknown}
            return schema.model_validate(known), tuple(map(_in_a_header, unknown))
        raise refusal_of(found, known_fields(schema))


def _is_unknown(error: Any) -> bool:
    return error["type"] == "extra_forbidden" and len(error["loc"]) == 1


def _in_a_header(name: str) -> str:
    """The name of a field as a header may have it."""
    return "".join(
        letter if (letter.isalnum() and letter.isascii()) or letter in "_-." else "?" for letter in name[:64]
    )


def known_fields(schema: type[BaseModel]) -> list[str]:
    """The names of a body's fields."""
    return [field.alias or name for name, field in schema.model_fields.items()]


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise RequestError("the body is not valid JSON: it is not UTF-8") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists within lists
        raise RequestError(
            "the body is not valid JSON: a number is too long, or something lies too deep"
        ) from None
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object")
    return value
