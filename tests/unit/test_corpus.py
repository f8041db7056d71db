"""Every input that fuzzers have kept, once more: documented errors, soon, and without much memory."""

from __future__ import annotations

import re
import time
import tracemalloc
from types import ModuleType

import msgspec
import pytest

from faasmoe import errors
from faasmoe.platforms.local.protocol import messages as local
from faasmoe.platforms.local.protocol import payloads, wire
from faasmoe.protocol import messages
from faasmoe.readers import messages as readers
from faasmoe.util.forkserver import messages as forks
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import CORPUS, PARSERS, TARGETS

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


TAGGED = re.compile(rb"[\x91-\x9f]([\xa2-\xbf])([A-Z][A-Za-z]+)")  # a short array that begins with a name


def tags_of(module: ModuleType) -> set[str]:
    structs = [
        each for each in vars(module).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)
    ]
    return {tag for each in structs if isinstance(tag := each.__struct_config__.tag, str)}


def test_kept_messages_have_tags_that_are_read_today() -> None:
    known = set().union(*map(tags_of, (messages, forks, readers, local, payloads))) | set(vars(errors))
    found = {
        name.decode()
        for file in (CORPUS / "control").iterdir()
        for length, name in TAGGED.findall(file.read_bytes())
        if len(name) == length[0] & 0x1F
    }
    assert {"StatsReport", "Start", "Load", "Refused"} <= found
    assert found <= known


def test_seeds_of_messages_are_read() -> None:
    unread = []
    for seed in SEEDS["control"]():
        try:
            PARSERS[seed[0]](seed[1:])
        except (errors.MessageError, wire.Lost) as error:
            unread.append(str(error))
    assert unread == ["another number of descriptors came than a call of its flags brings"]  # a seed brings none
