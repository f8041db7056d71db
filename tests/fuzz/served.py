"""Mutated bodies against a real server, beside a tenant whose requests must not notice."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import Any

import httpx

from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.keys import create_key
from faasmoe.tenancy.tenants import Tenant, add_tenant
from tests.chaos.clients import Attempt, Book
from tests.chaos.questions import MODEL, QUESTIONS, Answer
from tests.fuzz.mutation import mutated
from tests.fuzz.seeds import bodies
from tests.hostile import hostile_bodies
from tests.integration.servers import serve

_PATHS = ("/v1/completions", "/v1/chat/completions")
_LONGEST = 4096  # bytes of a mutated body
_PATIENCE = 60.0  # seconds for an answer
_LARGE_SHARE = 0.02  # of bodies that are as large as is taken
_FEW = 3  # tokens of an answer: many requests say more than long ones


@dataclass
class Findings:
    """What was answered, and what should not have been. `bad` has an input and what came of it."""

    statuses: Counter[int] = field(default_factory=Counter)
    bad: list[tuple[bytes, str]] = field(default_factory=list)
    disturbed: list[str] = field(default_factory=list)  # requests of the neighbour that failed or were wrong
    answered: int = 0  # of the neighbour's


def attack(seconds: float, corpus: Path, seed: int) -> bool:
    """Whether nothing was found; what was is written to `corpus`."""
    found = Findings()
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        url = f"sqlite:///{folder}/tenants.db"
        with open_database(url) as database:
            for name in ("good", "bad"):
                add_tenant(database, Tenant(name))
            keys = {name: create_key(database, name)[0] for name in ("good", "bad")}
        with serve(
            "--database", url, "--dtype", "float32", "--block-size", "12", "--log-level", "error"
        ) as server:
            over = threading.Event()
            neighbour = threading.Thread(target=live_beside, args=(server.url, keys["good"], over, found))
            neighbour.start()
            try:
                _attack(server.url, keys["bad"], seconds, corpus, seed, found)
            finally:
                over.set()
                neighbour.join()
    for content, why in found.bad:
        name = f"crash-served-{sha1(content, usedforsecurity=False).hexdigest()[:16]}"
        (corpus / name).write_bytes(content)
        print(f"{name}: {why}")
    print("\n".join(found.disturbed[:10]))
    print(
        f"seed {seed}: {found.statuses.total()} bodies {dict(sorted(found.statuses.items()))}, {len(found.bad)} bad;"
    )
    print(f"beside: {found.answered} answers, {len(found.disturbed)} disturbed")
    return not found.bad and not found.disturbed


def live_beside(url: str, key: str, over: threading.Event, found: Findings) -> None:
    """A well-behaved tenant: its answers are the same every time."""
    book = Book()
    right: dict[str, Answer] = {}
    with httpx.Client(timeout=_PATIENCE, trust_env=False) as client:
        while not over.is_set():
            attempt = Attempt(
                tenant="good", question=QUESTIONS[len(book.attempts) % len(QUESTIONS)], stream=True, most=0
            )
            book.run(client, url, key, attempt)
            if attempt.answer.done and attempt.answer.same_as(
                right.setdefault(attempt.question.name, attempt.answer)
            ):
                found.answered += 1
            else:
                answer = attempt.answer
                found.disturbed.append(
                    f"{attempt.question.name}: {attempt.defect or answer.error or answer.broken or answer}"
                )


def _attack(url: str, key: str, seconds: float, corpus: Path, seed: int, found: Findings) -> None:
    choice = random.Random(seed)
    inputs = [*bodies(), *(file.read_bytes() for file in sorted(corpus.iterdir()))]
    large = list(hostile_bodies(MODEL).values())
    head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    end = time.monotonic() + seconds
    with httpx.Client(timeout=_PATIENCE, trust_env=False) as client:
        while time.monotonic() < end:
            path, content = choice.choice(_PATHS), choice.choice(inputs)
            if choice.random() < _LARGE_SHARE:
                where, content = choice.choice(large)
                path = f"/v1/{where}"
            else:
                content = plausible(mutated(content, choice.getrandbits(32), _LONGEST) or content)
            try:
                answer = client.post(url + path, content=content, headers=head)
            except httpx.HTTPError as error:
                found.bad.append((content[:_LONGEST], f"{path}: {type(error).__name__}: {error}"))
                continue
            found.statuses[answer.status_code] += 1
            if answer.status_code >= 500 or (answer.status_code == 200 and "error" in answer.text[-200:]):
                found.bad.append((content[:_LONGEST], f"{path}: {answer.status_code} {answer.text[-200:]}"))


def plausible(content: bytes) -> bytes:
    """The same for the model that is there, and for few tokens."""
    try:
        body: Any = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(body, dict):
        return content
    body["model"] = MODEL if isinstance(body.get("model"), str) else body.get("model")
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(name), int) and body[name] > _FEW:
            body[name] = _FEW
    if "messages" in body and not {"max_tokens", "max_completion_tokens"} & body.keys():
        body["max_tokens"] = _FEW
    return json.dumps(body).encode()
