"""Tools, calls and their results as text, for models whose chat template has no place for them.

The form is that of Hermes 2 Pro (https://github.com/NousResearch/Hermes-Function-Calling), which many models have seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

_INTRODUCTION = """\
You can call functions. Their signatures are within <tools></tools>:
<tools>
{tools}
</tools>
To call one, write a JSON object with its name and its arguments within <tool_call></tool_call>:
<tool_call>
{{"name": "...", "arguments": {{...}}}}
</tool_call>"""


def folded(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], place: Literal["system", "user"]
) -> list[dict[str, Any]]:
    """The same conversation in messages that are text alone; `tools` stand in the first message of the role `place`."""
    found: list[dict[str, Any]] = []
    for message in messages:
        text = {key: value for key, value in message.items() if key not in ("tool_calls", "tool_call_id")}
        text["content"] = "\n".join(
            filter(None, [message["content"], *map(_call, message.get("tool_calls") or ())])
        )
        if message["role"] == "tool":
            text = {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
            if found and found[-1].get("results"):
                found[-1]["content"] += "\n" + text["content"]
                continue
            text["results"] = True
        found.append(text)
    for text in found:
        text.pop("results", None)
    return _with_tools(found, tools, place) if tools else found


def with_text(function: Mapping[str, Any]) -> dict[str, Any]:
    """The function of a call with its arguments as a text of JSON."""
    return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


def _call(call: Mapping[str, Any]) -> str:
    function = call["function"]
    written = json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
    return f"<tool_call>\n{written}\n</tool_call>"


def _with_tools(
    messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], place: Literal["system", "user"]
) -> list[dict[str, Any]]:
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _INTRODUCTION.format(tools=listed)
    if place == "system" and messages[0]["role"] not in ("system", "developer"):
        return [{"role": "system", "content": text}, *messages]
    roles = ("system", "developer") if place == "system" else ("user",)
    at = next((i for i, message in enumerate(messages) if message["role"] in roles), None)
    if at is None:
        return [{"role": place, "content": text}, *messages]
    joined = (
        f"{messages[at]['content']}\n\n{text}" if place == "system" else f"{text}\n\n{messages[at]['content']}"
    )
    return [*messages[:at], {**messages[at], "content": joined}, *messages[at + 1 :]]
