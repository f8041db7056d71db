"""The glossary of docs/concepts.md has the words that name modules and classes, and no class has two meanings."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "faasmoe"

# Words that are no nouns: verbs, participles, adjectives, prepositions.
NO_NOUNS = """
    about accepted activate activated allowed alone
    answered any away by cancel changed closeable collected completed deploy
    announce deployed detokenize done early encoded ended evaluate exceeded failed finished finite fits found freeze full
    generate import in inspect install joined kill killed known largest lazy left light load lost meanwhile
    measured named new no not numeric called open other outgoing overdue overlapped own passed pending play played
    prefork prepare prepared prewarm published read ready
    recorded redacted refused registered remote remove scheduled scored
    seen sent
    serve serving shown signed simulated small spent stacked stalled starting stop stopped stored strict stuck submit
    such suspect taken tell too turned unauthenticated understood unknown unsupported untouched waiting wanted whole
    tokenize typed without wrong plain
"""

# Nouns that mean here what they mean in any program, library or protocol.
PLAIN_NOUNS = """
    address app base bound chat check child class cli client clock command count decoder entry env event faasmoe field
    flag gc http info job json kind line listener lock main message module msgpack name number openai
    option outcome output packet param process protocol query range room runner setup size status table unit
    util
"""

# Classes that are one idea on two sides of a socket or a boundary.
ONE_IDEA = {
    "Connection": "one end of a socket to another process",
    "Instance": "an instance as itself, and as its platform's status tells of it",
    "Message": "the base of a protocol's messages; in a chat, a message of the conversation",
    "Ready": "the message of a process that takes requests from now on",
    "Refused": "the reply to a request that is not run",
}


def public_classes() -> Iterator[tuple[str, str]]:
    """Names of classes, each with its module."""
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, str(path.relative_to(PACKAGE))


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not {"versions", "demo"} & set(path.parts)]


def words(name: str) -> list[str]:
    """The words of a name in either of Python's spellings, in small letters and the singular."""
    name = name.replace("OpenAI", "Openai")
    spelled = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return [singular(word.lower()) for word in spelled.split("_") if word]


def singular(word: str) -> str:
    if word == "children":
        return "child"
    if word.endswith("ies") and word != "series":
        return word[:-3] + "y"
    if word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    return word[:-2] if word.endswith(("sses", "xes", "ches")) else word[:-1]


def rows() -> list[tuple[str, str]]:
    """The glossary: word, or words, and meaning."""
    text = (ROOT / "docs" / "concepts.md").read_text().split("## Glossary")[1]
    cells = re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE)
    return [(first, second) for first, second in cells if first not in ("word", "---")]


def glossary() -> set[str]:
    """The words that have an entry: those of a row's first cell, and those in italics in its second."""
    entries = [first for first, _ in rows()]
    for _, second in rows():
        entries += re.findall(r"\*(\w[\w -]*)\*", second)
    return {singular(word) for entry in entries for word in re.findall(r"[a-z0-9]+", entry.lower())}


def without_entry() -> set[str]:
    return {singular(word) for word in f"{NO_NOUNS} {PLAIN_NOUNS}".split()}


def names() -> dict[str, set[str]]:
    """Every word of a module's or a class's name, with the places where it is used."""
    places: dict[str, set[str]] = defaultdict(set)
    for path in modules():
        for word in words(path.parent.name if path.stem == "__init__" else path.stem):
            places[word].add(str(path.relative_to(PACKAGE)))
    for name, module in public_classes():
        for word in words(name):
            places[word].add(f"{module}: {name}")
    return places


def test_every_noun_in_a_name_is_in_the_glossary() -> None:
    explained = glossary() | without_entry()
    missing = {word: sorted(places) for word, places in names().items() if word not in explained}
    assert missing == {}, "add these to the glossary in docs/concepts.md"


def test_words_that_need_no_entry_have_none_and_are_in_use() -> None:
    assert without_entry() & glossary() == set()
    assert without_entry() - set(names()) == set()


def test_no_word_has_two_entries() -> None:
    entries = [first for first, _ in rows()]
    assert sorted(set(entries)) == sorted(entries)


def test_two_classes_have_one_name_only_if_they_are_one_idea() -> None:
    count = Counter(name for name, _ in public_classes())
    assert {name for name, classes in count.items() if classes > 1} == set(ONE_IDEA)
