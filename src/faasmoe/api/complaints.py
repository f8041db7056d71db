"""What is wrong with a request, in this server's words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from faasmoe.errors import RequestError

_UNION_MEMBER = re.compile(r"\W|^str$")  # what pydantic adds to a field's path where it tries several types
_LONGEST_NAME = 100  # characters of a field's name that are repeated


def refusal_of(found: Sequence[Mapping[str, Any]]) -> RequestError:
    """The error for what pydantic has found, which is at least one thing."""
    first = _most_telling(found)
    where = [str(part)[:_LONGEST_NAME] for part in _path(first)]
    param = where[0] if where and first["type"] != "json_invalid" else None
    field = ".".join(part for part in where if not _UNION_MEMBER.search(part))
    return RequestError(_complaint(first, field), param=param)


def _most_telling(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The deepest error of the first field: where pydantic tried several types, the one that came furthest."""
    field = _path(found[0])[:1]
    return max((error for error in found if _path(error)[:1] == field), key=lambda error: len(error["loc"]))


def _path(error: Mapping[str, Any]) -> Sequence[Any]:
    where: Sequence[Any] = error["loc"]
    return where[1:] if where[:1] == ("body",) else where  # FastAPI puts it in front


def _complaint(error: Mapping[str, Any], field: str) -> str:
    match error["type"]:
        case "json_invalid":
            return f"the body is not valid JSON: {error['ctx']['error']}"
        case "extra_forbidden":
            return f"{field}: this server does not know or honour this field"
        case "none_required":
            return f"{field}: this server does not honour this field; leave it out"
        case "literal_error" if not field.endswith("role"):
            return f"{field}: this server does not honour this; it takes only {error['ctx']['expected']}"
        case "too_long" if error["ctx"]["max_length"] == 0:
            return f"{field}: this server does not honour this; leave it out or empty"
    return f"{field or 'body'}: {error['msg'].removeprefix('Value error, ')}"
