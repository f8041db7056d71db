"""Bodies of up to 4 MiB that are made to cost the server much."""

from __future__ import annotations

SIZE = (4 << 20) - 256

_TURN = '{"role":"user","content":"x"}'
_PART = '{"type":"text","text":"x"}'

Hostile = tuple[str, bytes]  # path under /v1, body


def _many(item: str) -> str:
    return ",".join([item] * (SIZE // (len(item) + 1)))


def hostile_bodies(model: str) -> dict[str, Hostile]:
    """By what they consist of. None of them is answered with anything but an error of the client's."""
    user = f'{{"model":"{model}","messages":[{{"role":"user","content":'
    prompt = f'{{"model":"{model}","prompt":'
    made = {
        "objects": ("completions", f"{prompt}[{_many('{}')}]}}"),
        "lists": ("completions", f"{prompt}[{_many('[]')}]}}"),
        "depth": ("completions", prompt + "[" * (SIZE // 2) + "]" * (SIZE // 2) + "}"),
        "lists of objects": ("completions", f"{prompt}[{_many('[{}]')}]}}"),
        "strings": ("completions", f"{prompt}[{_many(chr(34) + 'x' + chr(34))}]}}"),
        "ids": ("completions", f"{prompt}[{_many('257')}]}}"),
        "digits": ("completions", f"{prompt}[{'1' * SIZE}]}}"),
        "text": ("completions", f'{prompt}"{"a word " * (SIZE // 7)}"}}'),
        "emoji": ("completions", f'{prompt}"{"🎈" * (SIZE // 4)}"}}'),
        "spaces": ("completions", f'{prompt}"{" " * SIZE}"}}'),
        "escapes": ("completions", f'{prompt}"{chr(92)}u00e9{(chr(92) + "u00e9") * (SIZE // 6 - 1)}"}}'),
        "control tokens": ("completions", f'{prompt}"{"<|endoftext|>" * (SIZE // 13)}"}}'),
        "stops": ("completions", f'{prompt}"a","stop":[{_many(chr(34) + "a" + chr(34))}]}}'),
        "long stop": ("completions", f'{prompt}"a","stop":"{"a" * SIZE}"}}'),
        "biases": (
            "completions",
            f'{prompt}"a","logit_bias":{{{",".join(f"{chr(34)}{i}{chr(34)}:1" for i in range(SIZE // 11))}}}}}',
        ),
        "fields": ("completions", "{" + ",".join(f'"{i}":1' for i in range(SIZE // 11)) + "}"),
        "no model": ("completions", f'{{"model":"{"m" * SIZE}","prompt":"a"}}'),
        "messages": ("chat/completions", f'{{"model":"{model}","messages":[{_many("{}")}]}}'),
        "empty messages": (
            "chat/completions",
            f'{{"model":"{model}","messages":[{_many(chr(123) + chr(34) + "role" + chr(34) + ":1}")}]}}',
        ),
        "parts": ("chat/completions", f"{user}[{_many('{}')}]}}]}}"),
        "many turns": ("chat/completions", f'{{"model":"{model}","messages":[{_many(_TURN)}]}}'),
        "many parts": ("chat/completions", f"{user}[{_many(_PART)}]}}]}}"),
        "no end": ("chat/completions", "[" * SIZE),
        "numbers": ("completions", f'{prompt}"a","temperature":1e999999,"n":{"9" * 5000}}}'),
        "chat": ("chat/completions", f'{user}"{"a word " * (SIZE // 7)}"}}]}}'),
    }
    bodies = {name: (path, text.encode()) for name, (path, text) in made.items()}
    return bodies | {"no text": ("completions", prompt.encode() + b'"\xff\xfe"}')}
