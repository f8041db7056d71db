"""Clients of several tenants that ask again and again, and the book of all that they asked."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import httpx

from tests.chaos.questions import QUESTIONS, Answer, Question, ask

LONGEST = 150.0  # seconds that a client waits for the next byte
_AGAIN = 0.2  # seconds until one asks again after an error
_CANCELLED = 0.15  # of streams


@dataclass(kw_only=True)
class Attempt:
    """One request. Times are of the monotonic clock."""

    tenant: str
    question: Question
    stream: bool
    most: int  # events after which the client goes away; 0: it stays
    begun: float = field(default_factory=time.monotonic)
    progressed: float = 0.0  # the last event of a stream
    ended: float | None = None
    answer: Answer = field(default_factory=Answer)
    defect: str | None = None  # an answer that no server may give

    @property
    def cancelled(self) -> bool:
        """The client went away."""
        return bool(self.most) and not self.answer.done and not self.failed

    @property
    def failed(self) -> bool:
        """The server did not do what was asked, and said so or not."""
        return self.answer.error is not None or self.answer.broken is not None


class Book:
    """Every attempt, and what the right answers are. For several threads."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.right: dict[str, Answer] = {}

    def run(self, client: httpx.Client, url: str, key: str, attempt: Attempt) -> None:
        """Ask, and note what comes of it."""
        self.attempts.append(attempt)
        answer = attempt.answer

        def progressed() -> None:
            attempt.progressed = time.monotonic()

        answer.progressed = progressed
        try:
            ask(client, url, attempt.question, key, answer, attempt.stream, attempt.most)
            if not answer.done and answer.error is None and not attempt.most:
                answer.broken = "the stream ended without an end"
        except httpx.HTTPError as error:
            if not answer.done:
                answer.broken = f"{type(error).__name__}: {error}"
        except (AssertionError, ValueError, KeyError) as error:
            attempt.defect = f"{type(error).__name__}: {error}"
        attempt.ended = time.monotonic()

    def is_right(self, attempt: Attempt) -> bool:
        """Whether it has been answered, whole and right."""
        right = self.right.get(attempt.question.name)
        return attempt.answer.done and right is not None and attempt.answer.same_as(right)


class Clients:
    """`each` threads for each tenant. They ask while they are entered, but not while they rest."""

    def __init__(self, book: Book, keys: dict[str, str], each: int, seed: int) -> None:
        self._book = book
        self._keys = keys
        self._over = threading.Event()
        self._may = threading.Event()
        self._may.set()
        self.url = ""
        self._threads = [
            threading.Thread(target=self._live, args=(tenant, f"{seed}-{tenant}-{number}"), daemon=True)
            for tenant in keys
            for number in range(each)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """They end when they have their answers, or when the server is gone."""
        self._over.set()
        self._may.set()
        end = time.monotonic() + LONGEST
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def rest(self, seconds: float) -> None:
        """Nobody asks for a while."""
        self._may.clear()
        self._over.wait(seconds)
        self._may.set()

    def _live(self, tenant: str, seed: str) -> None:
        choice = random.Random(seed)
        with httpx.Client(timeout=httpx.Timeout(5.0, read=LONGEST), trust_env=False) as client:
            while not self._over.is_set():
                self._may.wait()
                stream = choice.random() < 0.6
                most = choice.randint(1, 20) if stream and choice.random() < _CANCELLED else 0
                attempt = Attempt(tenant=tenant, question=choice.choice(QUESTIONS), stream=stream, most=most)
                self._book.run(client, self.url, self._keys[tenant], attempt)
                self._over.wait(_AGAIN if attempt.failed else choice.choice((0.0, 0.05, 0.4)))


def record(book: Book, url: str, keys: dict[str, str]) -> None:
    """Ask every question whole and as a stream, undisturbed: these answers are the right ones."""
    with httpx.Client(timeout=LONGEST, trust_env=False) as client:
        for stream in (False, True):
            for question in QUESTIONS:
                tenant = next(iter(keys))
                attempt = Attempt(tenant=tenant, question=question, stream=stream, most=0)
                book.run(client, url, keys[tenant], attempt)
                assert attempt.answer.done, f"{question.name}: {attempt.answer.error or attempt.defect}"
                right = book.right.setdefault(question.name, attempt.answer)
                assert attempt.answer.same_as(right), f"{question.name}: a stream says something else"


def recovery(book: Book, url: str, keys: dict[str, str], since: float, patience: float) -> float | None:
    """Seconds from `since` until each tenant has a right answer again, whose client asks until it gets one.

    None: one had none within `patience`.
    """
    found: dict[str, float] = {}
    end = since + patience

    def probe(tenant: str) -> None:
        with httpx.Client(timeout=httpx.Timeout(5.0, read=patience), trust_env=False) as client:
            while time.monotonic() < end and tenant not in found:
                attempt = Attempt(tenant=tenant, question=QUESTIONS[0], stream=False, most=0)
                book.run(client, url, keys[tenant], attempt)
                if book.is_right(attempt) and attempt.ended is not None:
                    found[tenant] = attempt.ended - since
                else:
                    threading.Event().wait(_AGAIN)

    threads = [threading.Thread(target=probe, args=(tenant,), daemon=True) for tenant in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return max(found.values()) if len(found) == len(keys) else None
