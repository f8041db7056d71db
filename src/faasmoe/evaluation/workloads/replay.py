"""A recorded workload: JSON lines, one request each.

    {"time": 0.25, "tenant": "a", "prompt": "Once upon", "max_tokens": 20}
    {"time": 1.5, "tenant": "b", "prompt_tokens": 300, "max_tokens": 12}

Public traces of language models tell times and token counts, so the second form is what they are turned into.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faasmoe.errors import OptionError
from faasmoe.evaluation.workloads.ask import Ask

_FIELDS = {"time", "tenant", "prompt", "prompt_tokens", "max_tokens"}


def replay(file: Path) -> Iterator[Ask]:
    """The file's requests, in its order. Raises `OptionError` naming the line that makes no sense, when it comes."""
    last = 0.0
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"{file}, line {number}"
                ask = _ask(where, line)
                if ask.time is None or ask.time < last:
                    raise OptionError(f"{where}: time is {ask.time}, but lines must be in order of time")
                last = ask.time
                yield ask
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{file}: cannot be read: {error}") from error


def _ask(where: str, line: str) -> Ask:
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise OptionError(f"{where}: is no JSON: {error}") from error
    if not isinstance(raw, dict) or not raw.keys() <= _FIELDS:
        raise OptionError(f"{where}: must be an object with the fields {', '.join(sorted(_FIELDS))} and no others")
    if ("prompt" in raw) == ("prompt_tokens" in raw):
        raise OptionError(f"{where}: must have either prompt or prompt_tokens")
    time = _number(where, raw, "time", (int, float), 0)
    tenant = raw.get("tenant", "")
    prompt = raw["prompt"] if "prompt" in raw else _number(where, raw, "prompt_tokens", (int,), 1)
    if not isinstance(tenant, str):
        raise OptionError(f"{where}: tenant is {tenant!r}: must be a string")
    if "prompt" in raw and not (isinstance(prompt, str) and prompt):
        raise OptionError(f"{where}: prompt must be a string that is not empty")
    return Ask(float(time), tenant, prompt, int(_number(where, raw, "max_tokens", (int,), 1)))


def _number(where: str, raw: dict[str, Any], field: str, kinds: tuple[type, ...], least: int) -> Any:
    value = raw.get(field)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):  # type: ignore[operator]
        kind = "a whole number" if kinds == (int,) else "a number"
        raise OptionError(f"{where}: {field} is {value!r}: must be {kind} of at least {least}")
    return value
