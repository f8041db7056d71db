"""Results as a page that needs nothing else, with its charts as PNG beside it, and its tables as Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from faasmoe.evaluation.claims import Verdict, judge
from faasmoe.evaluation.report.plots import Chart
from faasmoe.evaluation.report.sections import Section, sections_of
from faasmoe.evaluation.report.tables import bounds_table, claims_table, cost_of_measuring
from faasmoe.evaluation.results import Results

PAGE, TABLES = "report.html", "report.md"


@dataclass(frozen=True, slots=True)
class Chapter:
    """The part of the page for one file of results. `name` is the file's."""

    name: str
    results: Results
    sections: tuple[Section, ...]

    @property
    def meter(self) -> str:
        """The cost of measuring."""
        return cost_of_measuring(self.results.runs)

    @property
    def commands(self) -> list[str]:
        """The commands that made the results."""
        return [shlex.join(command) for command in self.results.commands or [self.results.command]]

    @property
    def machine(self) -> str:
        """The machine that the figures depend on."""
        facts = self.results.machine
        memory = int(facts["memory_bytes"]) / 2**30
        return f"{facts['cores']} cores of {facts['cpu']}, {memory:.0f} GiB of memory, Linux {facts['kernel']}"

    @property
    def versions(self) -> str:
        """The versions of all software that ran."""
        its = {
            "faasmoe": self.results.faasmoe,
            "Python": str(self.results.machine["python"]),
            **self.results.versions,
        }
        return ", ".join(f"{name} {version}" for name, version in its.items())


def chapters_of(several: Mapping[str, Results]) -> list[Chapter]:
    """The chapters of a report by the name of their file."""
    return [Chapter(name, results, tuple(sections_of(results))) for name, results in several.items()]


def write(several: Mapping[str, Results], folder: Path) -> list[Path]:
    """The page, the tables, and a PNG for each chart. Returns the files in this order."""
    chapters, verdicts = chapters_of(several), judge(several)
    drawings = {name: chart.draw() for name, chart in charts_of(chapters).items()}
    folder.mkdir(parents=True, exist_ok=True)
    svg = {name: drawing.svg for name, drawing in drawings.items()}
    texts = {PAGE: page(chapters, verdicts, svg), TABLES: tables(chapters, verdicts)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    for name, drawing in drawings.items():
        (folder / f"{name}.png").write_bytes(drawing.png)
    return [*(folder / name for name in texts), *(folder / f"{name}.png" for name in drawings)]


def charts_of(chapters: Sequence[Chapter]) -> dict[str, Chart]:
    """All charts by a name that suits files and links."""
    return {
        slug(chapter.name, section.name, chart.name): chart
        for chapter in chapters
        for section in chapter.sections
        for chart in section.charts
    }


def page(chapters: Sequence[Chapter], verdicts: Sequence[Verdict], drawings: Mapping[str, str]) -> str:
    """The page as one HTML file without scripts and external resources. `drawings` are SVG by `charts_of`'s names."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(slug=slug, drawing=lambda name: _inline(drawings[name], name))
    source = files("faasmoe.evaluation.report").joinpath("page.html.jinja").read_text()
    models = ", ".join(dict.fromkeys(chapter.results.model for chapter in chapters))
    return environment.from_string(source).render(
        chapters=chapters,
        claims=verdicts,
        claims_table=claims_table(verdicts, several=len(chapters) > 1),
        bounds_table=bounds_table([one.claim for one in verdicts]),
        models=models,
    )


def tables(chapters: Sequence[Chapter], verdicts: Sequence[Verdict]) -> str:
    """All tables, as Markdown."""
    parts = ["## Claims", claims_table(verdicts, several=len(chapters) > 1).markdown()]
    parts += ["Where the bounds come from:", bounds_table([one.claim for one in verdicts]).markdown()]
    for chapter in chapters:
        parts.append(f"## {chapter.results.model}")
        for section in chapter.sections:
            parts += [f"### {section.title}", *(table.markdown() for table in section.tables)]
        parts.append(f"Measuring: {chapter.meter}.")
    return "\n\n".join(parts) + "\n"


def slug(*names: str) -> str:
    """The names as one that suits files and links."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")


def _inline(svg: str, prefix: str) -> Markup:
    """An element of a page that has several: what refers to parts of it names them with `prefix`."""
    return Markup(re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}-", svg))  # noqa: S704 - we drew it
