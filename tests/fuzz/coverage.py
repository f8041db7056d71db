"""As few inputs as reach what many reach.

Of bodies, what pydantic finds wrong counts as well: its code is not Python, so that no steps tell them apart.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from pydantic import ValidationError

from faasmoe.api.openai.schema import ChatBody, CompletionBody
from faasmoe.errors import RequestError
from tests.fuzz.targets import Target, bodies

Step = tuple[str, int, int] | tuple[str, str]  # file, line before, line; or what is wrong, and in which field


def smallest_cover(target: Target, inputs: Iterable[bytes], most: int) -> list[bytes]:
    """Inputs of which each reaches steps that no shorter one does; if they are too many, those that add most."""
    reached: set[Step] = set()
    added: list[tuple[int, bytes]] = []
    for content in sorted(set(inputs), key=lambda content: (len(content), content)):
        with _steps() as steps, suppress(Exception):  # the fuzzer has told of it
            target(content)
        steps |= _complaints(content) if target is bodies else set()
        if new := steps - reached:
            reached |= new
            added.append((len(new), content))
    return [content for _, content in sorted(added, key=lambda item: -item[0])[:most]]


def _complaints(content: bytes) -> set[Step]:
    found: set[Step] = set()
    for kind in (CompletionBody, ChatBody):
        try:
            kind.model_validate(json.loads(content))
        except ValidationError as error:
            found |= {(each["type"], str((*each["loc"], "")[0])) for each in error.errors(include_input=False)}
        except (ValueError, RecursionError, RequestError) as error:
            found.add((type(error).__name__, str(error)[:12]))
    return found


@contextmanager
def _steps() -> Iterator[set[Step]]:
    """From line to line of this project's code, as this thread goes them."""
    steps: set[Step] = set()
    before: dict[int, int] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if "/faasmoe/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            steps.add((frame.f_code.co_filename, before.get(id(frame), 0), frame.f_lineno))
            before[id(frame)] = frame.f_lineno
        elif event == "exception":
            steps.add((frame.f_code.co_filename, -1, frame.f_lineno))
        else:
            before.pop(id(frame), None)
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(earlier)
