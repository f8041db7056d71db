"""Every input that fuzzers have kept, once more: documented errors, soon, and without much memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import CORPUS, TARGETS

SECONDS = 2.0  # for one input, on a busy machine
MEGABYTES = 16  # at the peak, for one input
MOST_FILES, MOST_BYTES = 200, 300_000  # of all together


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_kept_raises_takes_long_or_takes_much(name: str) -> None:
    target = TARGETS[name]
    kept = {file.name: file.read_bytes() for file in sorted((CORPUS / name).iterdir())}
    assert kept
    target(b"{}")  # what is loaded once is nobody's memory
    for what, content in {**kept, **{f"seed {i}": seed for i, seed in enumerate(SEEDS[name]())}}.items():
        begun = time.process_time()
        target(content)
        assert time.process_time() - begun < SECONDS, what
        tracemalloc.start()
        try:
            target(content)
            assert tracemalloc.get_traced_memory()[1] < MEGABYTES << 20, what
        finally:
            tracemalloc.stop()


def test_the_corpus_is_small() -> None:
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert len(files) < MOST_FILES
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
