"""llguidance and xgrammar, side by side: compiling, masks, and whether answers fit their schemas.

    pip install xgrammar && python -m benchmarks.grammars

Each library follows schemas on the made-up vocabulary of `benchmarks.structured`, on one core: tokens are drawn from
those that it allows, and the answer is validated by the library jsonschema. `wrong`: the answer does not fit;
`refused`: the library says that it cannot; `long`: the answer did not end within the tokens that are drawn.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits
from rich.console import Console
from rich.table import Table

from benchmarks.structured import SCHEMA, VOCABULARY, MadeUp
from faasmoe.engine.grammar.vocabulary import grammar_vocabulary
from faasmoe.protocol.request import GRAMMAR_LIMITS

END = VOCABULARY - 1
FREE, MOST = 60, 600  # tokens: any that is allowed, and then those that close something
CLOSING = (END, *b'"}]', *b"0123456789", *b"lesundf")
_NODE = {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}
SCHEMAS: dict[str, Any] = {
    "rows of objects": SCHEMA,
    "enum of 1,000": {"enum": [f"value {i}" for i in range(1000)]},
    "recursive": {
        "$ref": "#/$defs/n",
        "$defs": {"n": {"type": "object", "properties": _NODE, "required": ["v"], "additionalProperties": False}},
    },
    "50 optional fields": {
        "type": "object",
        "properties": {f"k{i}": {"type": "integer"} for i in range(50)},
        "additionalProperties": False,
    },
    "pattern": {"type": "string", "pattern": "^[a-z]{2,20}-[0-9]{4}$"},
    "minLength": {"type": "string", "minLength": 3, "maxLength": 9},
    "minimum, maximum": {"type": "integer", "minimum": -37, "maximum": 1999},
    "multipleOf": {"type": "number", "multipleOf": 0.5},
    "format date-time": {"type": "string", "format": "date-time"},
    "allOf": {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]},
    "oneOf": {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]},
    "patternProperties": {
        "type": "object",
        "patternProperties": {"^a": {"type": "integer"}},
        "additionalProperties": False,
    },
    "maxProperties": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
    "prefixItems": {"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 1, "maxItems": 1},
    "const": {"const": {"a": [1, None]}},
    "not": {"not": {"type": "string"}},
    "if, then": {"if": {"type": "string"}, "then": {"minLength": 2}},
    "uniqueItems": {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2},
}


class Following:
    """One library, following one grammar."""

    def allowed(self) -> np.ndarray[Any, Any]:
        raise NotImplementedError

    def take(self, token: int) -> bool:
        """Whether nothing may follow."""
        raise NotImplementedError


def llguidance(tokens: MadeUp) -> Callable[[str], Following]:
    vocabulary = grammar_vocabulary(tokens, VOCABULARY, [END])

    class Ours(Following):
        def __init__(self, schema: str) -> None:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
            self._matcher = LLMatcher(vocabulary, grammar, limits=LLParserLimits(**GRAMMAR_LIMITS))
            self._bits = np.zeros(VOCABULARY // 32, np.int32)
            if self._matcher.is_error():
                raise ValueError(self._matcher.get_error())

        def allowed(self) -> np.ndarray[Any, Any]:
            self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
            return self._bits

        def take(self, token: int) -> bool:
            self._matcher.consume_token(token)
            return bool(self._matcher.is_stopped())

    return Ours


def xgrammar(tokens: MadeUp) -> Callable[[str], Following]:
    import xgrammar  # noqa: PLC0415 - nothing else needs it

    words = [tokens.token_bytes(token) for token in range(VOCABULARY)]
    info = xgrammar.TokenizerInfo(
        words, vocab_type=xgrammar.VocabType.RAW, vocab_size=VOCABULARY, stop_token_ids=[END]
    )
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)

    class Theirs(Following):
        def __init__(self, schema: str) -> None:
            self._matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(schema, any_whitespace=False))
            self._bits = xgrammar.allocate_token_bitmask(1, VOCABULARY)

        def allowed(self) -> np.ndarray[Any, Any]:
            self._matcher.fill_next_token_bitmask(self._bits)
            return np.asarray(self._bits.numpy()[0])

        def take(self, token: int) -> bool:
            self._matcher.accept_token(token)
            return bool(self._matcher.is_terminated())

    return Theirs


def followed(begin: Callable[[str], Following], schema: Any, tokens: MadeUp) -> Iterator[str]:
    """Compile milliseconds, median and longest mask in microseconds, and what came of the answer."""
    start = time.perf_counter()
    try:
        place = begin(json.dumps(schema))
    except Exception as error:  # noqa: BLE001 - whatever a library raises
        yield from ("", "", "", f"refused: {str(error).splitlines()[0][:40]}")
        return
    yield f"{1e3 * (time.perf_counter() - start):.1f}"
    times, text, chance, ended = [], b"", random.Random(1), False
    for count in range(MOST):
        start = time.perf_counter()
        bits = place.allowed()
        times.append(time.perf_counter() - start)
        allowed = np.unpackbits(bits.view(np.uint8), count=VOCABULARY, bitorder="little").nonzero()[0]
        closing = next((token for token in CLOSING if count >= FREE and token in allowed), None)
        token = int(chance.choice(allowed)) if closing is None else closing
        if token != END:
            text += tokens.token_bytes(token)
        ended = token == END or place.take(token)
        if ended:
            break
    yield f"{1e6 * statistics.median(times):.0f}"
    yield f"{1e6 * max(times):.0f}"
    try:
        jsonschema.validate(json.loads(text), schema)
        yield "fits"
    except (ValueError, jsonschema.ValidationError):
        yield "wrong" if ended else "long"


def main() -> None:
    torch.set_num_threads(1)
    tokens = MadeUp()
    table = Table("schema", "library", "compile ms", "mask us", "longest", "answer")
    for name, make in (("llguidance", llguidance), ("xgrammar", xgrammar)):
        start = time.perf_counter()
        begin = make(tokens)
        table.add_row("(vocabulary)", name, f"{1e3 * (time.perf_counter() - start):.0f}")
        for kind, schema in SCHEMAS.items():
            table.add_row(kind, name, *followed(begin, schema, tokens))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
