"""What clients ask, with answers that never change: greedy or seeded, in float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.streams import data_of

MODEL = "faasmoe-demo"
_LONG = "The wolf went over the hill, and then it went over the next hill. " * 12


@dataclass(frozen=True)
class Question:
    """A body, and which endpoint takes it."""

    name: str
    body: dict[str, Any]
    chat: bool = False

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"


def _asked(name: str, prompt: Any, tokens: int, **others: Any) -> Question:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, **others}
    return Question(name, body)


QUESTIONS = (
    _asked("short", "It was a dark night, and", 6, temperature=0),
    _asked("long", "Once upon a time", 120, temperature=0),
    _asked("seeded", "The queen said", 30, temperature=0.8, seed=7),
    _asked("several", ["A cat", "A dog and"], 12, temperature=0.9, seed=3, n=2),
    _asked("reads", _LONG, 8, temperature=0),
    _asked("ids", [5, 6, 7, 8, 9], 20, temperature=1.0, seed=11, top_p=0.9),
    Question(
        "chat",
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Who was it?"}],
            "max_tokens": 25,
            "temperature": 0.7,
            "seed": 5,
        },
        chat=True,
    ),
)


@dataclass(kw_only=True)
class Answer:
    """What came: text by choice, how each ended, and what the server says it has used."""

    id: str = ""
    texts: dict[int, str] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    done: bool = False  # nothing is missing
    error: str | None = None  # as the server told it
    broken: str | None = None  # the connection ended without an answer
    status: int = 0
    progressed: Callable[[], None] = lambda: None

    def same_as(self, right: Answer) -> bool:
        """Whether a whole answer is the right one."""
        mine = (self.texts, self.ends, self.prompt_tokens, self.completion_tokens)
        return mine == (right.texts, right.ends, right.prompt_tokens, right.completion_tokens)

    def begins(self, right: Answer) -> bool:
        """Whether what came of one that was not finished is the beginning of the right one."""
        return all(right.texts.get(i, "").startswith(text) for i, text in self.texts.items())


def ask(
    client: httpx.Client, url: str, question: Question, key: str, answer: Answer, stream: bool, most: int
) -> None:
    """Fill `answer`. A stream is dropped after `most` events, unless that is 0. Raises `httpx.HTTPError`."""
    head = {"Authorization": f"Bearer {key}"}
    if not stream:
        got = client.post(url + question.path, json=question.body, headers=head)
        _status(answer, got.status_code, got.text)
        if answer.error is None:
            _whole(answer, got.json())
        return
    body = {**question.body, "stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", url + question.path, json=body, headers=head) as got:
        if got.status_code != 200:
            _status(answer, got.status_code, got.read().decode())
            return
        answer.status = 200
        for number, event in enumerate(data_of(got.iter_lines()), start=1):
            answer.progressed()
            if event == "[DONE]":
                if answer.done:
                    raise AssertionError("a stream ended twice")
                answer.done = answer.error is None
                continue
            if answer.done:
                raise AssertionError("something came after the end of a stream")
            _part(answer, json.loads(event))
            if number == most:
                return


def _status(answer: Answer, status: int, text: str) -> None:
    answer.status = status
    if status != 200:
        try:
            answer.error = str(json.loads(text)["error"]["message"])
        except (ValueError, KeyError, TypeError):
            raise AssertionError(f"status {status} without an error in OpenAI's shape") from None


def _whole(answer: Answer, facts: dict[str, Any]) -> None:
    answer.id = facts["id"]
    for choice in facts["choices"]:
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        answer.texts[choice["index"]] = text
        answer.ends[choice["index"]] = choice["finish_reason"]
    _used(answer, facts["usage"])
    answer.done = True


def _part(answer: Answer, facts: dict[str, Any]) -> None:
    if "error" in facts:
        answer.error = str(facts["error"]["message"])
        return
    answer.id = facts["id"]
    for choice in facts["choices"]:
        index = choice["index"]
        text = choice["delta"].get("content") if "delta" in choice else choice["text"]
        answer.texts[index] = answer.texts.get(index, "") + (text or "")
        if choice["finish_reason"]:
            answer.ends[index] = choice["finish_reason"]
    if facts.get("usage"):
        _used(answer, facts["usage"])


def _used(answer: Answer, usage: dict[str, int]) -> None:
    answer.prompt_tokens = usage["prompt_tokens"]
    answer.completion_tokens = usage["completion_tokens"]
