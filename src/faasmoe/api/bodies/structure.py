"""Limits on the structure of a body, counted before it is parsed.

A parser makes an object of each `{}`, and a validator an error of each object that is wrong: from 4 MiB of them come
gigabytes, and half a minute of work. So lists, objects, strings and numbers are counted first, in its bytes, which
takes milliseconds. A text of 4 MiB passes, whatever is written in it.
"""

from __future__ import annotations

from faasmoe.errors import RequestError

MAX_TEXTS = 1 << 16  # strings, including names of fields
MAX_NESTED = 1 << 14  # lists and objects
LEAST_VALUES = 1 << 15  # values that a body may have whatever the model's context


def check_structure(body: bytes, most_values: int) -> None:
    """Raises `RequestError` if `body`, which need not be JSON, has more structure than a request can need.

    `most_values` limits the values that stand beside each other, such as token ids of prompts.
    """
    # only quotes that delimit strings
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    if (quotes := bare.count(b'"')) > 2 * MAX_TEXTS:
        raise _too_much(f"{quotes // 2} strings", MAX_TEXTS)
    outside = b"".join(bare.split(b'"')[::2])
    if (nested := outside.count(b"[") + outside.count(b"{")) > MAX_NESTED:
        raise _too_much(f"{nested} lists and objects", MAX_NESTED)
    most = max(LEAST_VALUES, most_values)
    if (values := outside.count(b",") + 1) > most:
        raise _too_much(f"{values} values", most)


def _too_much(what: str, most: int) -> RequestError:
    return RequestError(f"the body has {what}; at most {most} are taken")
