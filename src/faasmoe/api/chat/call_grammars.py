"""Grammars of responses that call tools, think first, or answer under a schema, in llguidance's form of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from faasmoe.api.bodies.grammars import lark_schema
from faasmoe.api.chat.call_formats import CallFormat
from faasmoe.api.chat.thinking import ThinkingFormat

TokenOf = Callable[[str], int | None]  # the special token that stands for a text
_SIGN = re.compile(r"(<[^<>\s]+>|\[[A-Z_]+\])")
ANSWER = "answer"
_MOST_CALLS = 16


class GrammarWriter:
    """Writes the rules of one grammar. `special` gives the token of a sign that no text spells."""

    def __init__(self, special: TokenOf) -> None:
        self._special = special
        self._rules: dict[str, str] = {"TEXT": "/(.|\\n)*/", "WS": "/[ \\n]{0,4}/"}

    def response(
        self,
        *,
        thinking: ThinkingFormat | None,
        opened: bool,
        calls: str | None,
        answer: bool,
        text: bool = False,
    ) -> str:
        """The grammar. `answer`: there is a grammar of this name beside it; `text`: the answer may be any text."""
        ways = [way for way in (calls, f"@{ANSWER}" if answer else None, "TEXT" if text else None) if way]
        start = f"({' | '.join(ways)})"
        if thinking:
            thought = f"{self._until('thought', thinking.end)} WS"
            begun = thought if opened else f"(WS {self.literal(thinking.begin)} {thought})?"
            start = f"{begun} {start}"
        rules = "\n".join(f"{name}: {rule}" for name, rule in self._rules.items())
        return f"%llguidance {{}}\nstart: {start}\n{rules}\n"

    def literal(self, text: str) -> str:
        """A term for `text`, in which signs are special tokens where the tokenizer has such."""
        terms = []
        for part in _SIGN.split(text):
            token = self._special(part) if part else None
            if part:
                terms.append(json.dumps(part) if token is None else f"<[{token}]>")
        return " ".join(terms)

    def calls(self, form: CallFormat, tools: Sequence[Mapping[str, Any]], *, several: bool) -> str:
        """A term for one call of one of `tools`, or for several calls. Raises `RequestError` for a tool's schema."""
        for number, tool in enumerate(tools):
            self._rules[f"call_{number}"] = self._call(form, tool["function"], number)
        one = " | ".join(f"call_{number}" for number in range(len(tools)))
        several = several and form.close != "]"  # a list of calls is one literal here
        return f"({one}) (WS ({one})){{0,{_MOST_CALLS - 1}}}" if several else f"({one})"

    def calls_within_text(self, form: CallFormat, tools: Sequence[Mapping[str, Any]], *, several: bool) -> str:
        """A term for text with calls in it, each held to the schema of its tool; with one call nothing follows it."""
        for number, tool in enumerate(tools):
            self._rules[f"call_{number}"] = self._call(form, tool["function"], number, begun=form.begin)
        one = " | ".join(f"call_{number}" for number in range(len(tools)))
        begun = f"{self._until('before', form.begin)} ({one})"
        return f"({begun})* TEXT" if several else f"({begun} WS | TEXT)"

    def _until(self, name: str, sign: str) -> str:
        """A term for any text and the first `sign` behind it."""
        term = self.literal(sign)
        if term.startswith('"'):
            self._rules[f"{name}[lazy]"] = f"TEXT {term}"
            return name
        return f"TEXT {term}"

    def _call(self, form: CallFormat, function: Mapping[str, Any], number: int, begun: str = "") -> str:
        before = form.before.replace("NAME", function["name"])
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        before = before[len(begun) :] if before.startswith(begun) else before
        terms = [self.literal(before)]
        if form.of_value:
            terms += self._values(form.of_value, schema, number)
        else:
            terms.append(lark_schema(schema, "tools"))
        terms.append(self.literal(form.behind) if form.behind else "")
        return " ".join(filter(None, terms))

    def _values(self, of_value: tuple[str, str], schema: Mapping[str, Any], number: int) -> list[str]:
        required = set(schema.get("required") or ())
        terms = []
        for place, (key, value) in enumerate((schema.get("properties") or {}).items()):
            before, behind = self.literal(of_value[0].replace("KEY", "\0")), of_value[1]
            before = before.replace("\\u0000", json.dumps(key)[1:-1])
            if isinstance(value, dict) and value.get("type") == "string" and "enum" not in value:
                term = f"{before} {self._until(f'value_{number}_{place}', behind)}"
            else:
                term = f"{before} {lark_schema(value, 'tools')} {self.literal(behind)}"
            terms.append(term if key in required else f"({term})?")
        return terms


def with_answer(main: str, answer: str | None) -> str:
    """One grammar of a main one and, if there is one, a second that it calls `@answer`."""
    if answer is None:
        return json.dumps({"grammars": [{"name": "response", "lark_grammar": main}]})
    first, *more = json.loads(answer)["grammars"]
    return json.dumps({"grammars": [{"name": "response", "lark_grammar": main}, {**first, "name": ANSWER}, *more]})
