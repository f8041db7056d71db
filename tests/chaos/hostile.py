"""Bodies that once stopped a server. Each is made when it is sent: together they are large."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.chaos.questions import MODEL

LARGE = 4_000_000  # bytes: what fits below the limit of a body
_COMPLETIONS, _CHAT = "/v1/completions", "/v1/chat/completions"

Body = tuple[str, Callable[[], bytes]]  # where it is sent, and what


def _filled(start: str, item: str, end: str) -> bytes:
    count = (LARGE - len(start) - len(end)) // (len(item) + 1)
    return f"{start}{','.join([item] * count)}{end}".encode()


def _prompt(item: str) -> bytes:
    return _filled(f'{{"model":"{MODEL}","prompt":[', item, "]}")


def _messages(item: str) -> bytes:
    return _filled(f'{{"model":"{MODEL}","messages":[', item, "]}")


def _content(item: str) -> bytes:
    return _filled(f'{{"model":"{MODEL}","messages":[{{"role":"user","content":[', item, "]}]}")


def _text(field: str, text: str) -> bytes:
    return json.dumps(
        {"model": MODEL, field: (text * (LARGE // len(text) + 1))[: LARGE - 100], "max_tokens": 1}
    ).encode()


BODIES: tuple[Body, ...] = (
    (_COMPLETIONS, lambda: _prompt("{}")),
    (_COMPLETIONS, lambda: _prompt("[]")),
    (_COMPLETIONS, lambda: _prompt("[{}]")),
    (_COMPLETIONS, lambda: _prompt("1")),
    (_COMPLETIONS, lambda: _prompt('"x"')),
    (_COMPLETIONS, lambda: _text("prompt", "It was a dark night. ")),
    (_COMPLETIONS, lambda: _text("prompt", "a")),
    (_CHAT, lambda: _messages("{}")),
    (_CHAT, lambda: _messages('{"role":"user","content":"x"}')),
    (_CHAT, lambda: _content("{}")),
    (_CHAT, lambda: _content('{"type":"text","text":"x"}')),
    (_CHAT, lambda: b"[" * LARGE),
    (_COMPLETIONS, lambda: b'{"prompt":' * (LARGE // 10)),
    (_COMPLETIONS, lambda: b'{"model":"m","prompt":"\xff\xfe"}'),
    (_COMPLETIONS, lambda: b'{"model":"m","temperature":1e999999,"n":' + b"9" * 5000 + b"}"),
    (_COMPLETIONS, lambda: json.dumps({"model": MODEL, **{f"f{i}": i for i in range(100_000)}}).encode()),
    (
        _COMPLETIONS,
        lambda: json.dumps(
            {"model": MODEL, "prompt": "x", "logit_bias": {str(i): 1 for i in range(200_000)}}
        ).encode(),
    ),
)
