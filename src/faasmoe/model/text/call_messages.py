"""Calls and their results in the messages of a conversation, in ways that chat templates want."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

# as they are; with ids that have the tool's name in them, such as functions.NAME:0, since Kimi K2's template writes ids
# alone; or each call in a message of its own with its results behind it, since gpt-oss' template writes one call of a
# message, and leaves out the content beside it
Way = Literal["given", "named", "apart"]
Messages = Sequence[Mapping[str, Any]]


def put(messages: Messages, way: Way) -> Messages:
    """The same calls and results in another way."""
    if way == "named":
        return _named(messages)
    return _apart(messages) if way == "apart" else messages


def _named(messages: Messages) -> Messages:
    ids: dict[str, str] = {}
    found: list[Mapping[str, Any]] = []
    count = 0
    for message in messages:
        changed = dict(message)
        if calls := message.get("tool_calls"):
            changed["tool_calls"] = []
            for call in calls:
                ids[call["id"]] = f"functions.{call['function']['name']}:{count}"
                changed["tool_calls"].append({**call, "id": ids[call["id"]]})
                count += 1
        if "tool_call_id" in message:
            changed["tool_call_id"] = ids.get(message["tool_call_id"], message["tool_call_id"])
        found.append(changed)
    return found


def _apart(messages: Messages) -> Messages:
    found: list[Mapping[str, Any]] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        calls = message.get("tool_calls") or ()
        if not calls:
            found.append(message)
            continue
        results: list[Mapping[str, Any]] = []
        while at < len(messages) and messages[at]["role"] == "tool":
            results.append(messages[at])
            at += 1
        if message["content"]:
            found.append({"role": message["role"], "content": message["content"]})
        for number, call in enumerate(calls):
            kept = {key: value for key, value in message.items() if not number or key != "reasoning_content"}
            found.append({**kept, "content": "", "tool_calls": [call]})
            found += [result for result in results if result.get("tool_call_id") == call["id"]]
        known = {call["id"] for call in calls}
        found += [result for result in results if result.get("tool_call_id") not in known]
    return found
