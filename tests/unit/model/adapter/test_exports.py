from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faasmoe.model.adapter.exports import Exports, Structure

FOUND: Structure = {frozenset(): {"a.b": {"B", "C"}}, frozenset({"torch", "vision"}): {"a.c": {"D"}}}


class Finder:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, str | None]] = []

    def __call__(self, path: Any, prefix: str | None = None) -> Structure:
        self.asked.append((path, prefix))
        return {needs: dict(modules) for needs, modules in FOUND.items()}


def run(file: Path, package: str = "here 1") -> int:
    """Ask for two structures, twice each. Returns how many had to be found."""
    finder, exports = Finder(), Exports(file, package)
    find = exports.known(finder)
    for path, prefix in (("/t", None), (Path("/t"), "models")) * 2:
        structure = find(path, prefix)
        assert structure == FOUND
        structure[frozenset()].update({"changed": {"by whoever asked"}})
    exports.keep()
    return len(finder.asked)


def test_what_was_found_is_not_looked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "exports.json"
    assert (run(file), run(file)) == (2, 0)
    assert [kept.name for kept in tmp_path.iterdir()] == ["exports.json"]


def test_another_installation_is_looked_at_itself(tmp_path: Path) -> None:
    file = tmp_path / "exports.json"
    assert (run(file), run(file, "here 2"), run(file, "here 2")) == (2, 2, 0)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"package": "here 1"}', b'{"package": "here 1", "structures": 5}']
)
def test_a_file_that_is_damaged_is_made_again(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "exports.json"
    file.write_bytes(content)
    assert (run(file), run(file)) == (2, 0)
    assert "exports.json cannot be read and is made again" in caplog.text


def test_without_a_place_for_it_all_is_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "gone" / "exports.json"
    assert (run(file), run(file)) == (2, 2)
    assert "exports.json cannot be written" in caplog.text
