"""Fills tables of documents from the published results, docs/evaluation/*.json, and draws the charts that they show.

    python -m benchmarks.published

Between `<!-- claims: NAME... -->` or `<!-- figures: NAME SECTION -->` and `<!-- end -->` is what the results of these
names say; SECTION is one of the report's, such as strategies-paper. An image evaluation/NAME-SECTION-CHART.png is the
report's as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from faasmoe.evaluation.claims import judge
from faasmoe.evaluation.report.page import Chapter, chapters_of, charts_of
from faasmoe.evaluation.report.tables import claims_table
from faasmoe.evaluation.results import Results

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "evaluation"
DOCUMENTS = (ROOT / "docs" / "evaluation.md", ROOT / "README.md")
_BLOCK = re.compile(r"(<!-- (claims|figures): ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_IMAGE = re.compile(r"\]\((?:docs/)?evaluation/([a-z0-9-]+)\.png\)")
_NOT_YET = "Not measured yet."


def published(folder: Path = FOLDER) -> dict[str, Results]:
    """By the names of their files."""
    return {file.stem: Results.load(file) for file in sorted(folder.glob("*.json"))}


def filled(text: str, results: Mapping[str, Results]) -> str:
    """The text with all tables as `results` have them. Raises `KeyError` for a section that there is not."""
    chapters = {chapter.name: chapter for chapter in chapters_of(results)}

    def block(found: re.Match[str]) -> str:
        before, kind, words, after = found.groups()
        names = words.split()
        made = _claims(names, results) if kind == "claims" else _figures(*names, chapters)
        return f"{before}{made}\n{after}"

    return _BLOCK.sub(block, text)


def shown(text: str) -> list[str]:
    """Charts that the text shows."""
    return _IMAGE.findall(text)


def _claims(names: list[str], results: Mapping[str, Results]) -> str:
    there = [results[name] for name in names if name in results]
    return claims_table(judge(there)).markdown() if there else _NOT_YET


def _figures(name: str, section: str, chapters: Mapping[str, Chapter]) -> str:
    sections = {one.name: one for one in chapters[name].sections} if name in chapters else {}
    if section not in sections:
        return _NOT_YET
    return "\n\n".join(table.markdown() for table in sections[section].tables)


def main() -> None:
    results = published()
    charts = charts_of(chapters_of(results))
    for document in DOCUMENTS:
        text = document.read_text()
        document.write_text(filled(text, results))
        for name in shown(text):
            (FOLDER / f"{name}.png").write_bytes(charts[name].draw().png)


if __name__ == "__main__":
    main()
