"""The report of results. Drawing starts a process, that lists fonts, so it is no unit test."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.report.page import write
from faasmoe.evaluation.results import LeftOut, Results, Run
from tests.unit.cli.commands import run as faasmoe
from tests.unit.evaluation.made import results, run

OURS = "faasmoe-shared"


def everything() -> Results:
    """A run or two of each experiment."""
    runs: list[Run] = []
    for trial in range(2):
        runs += [run(OURS, trial), run("shared-full", trial, memory=1_100_000_000 + trial)]
        runs.append(run("baseline", trial, extrapolated=True, measured_tenants=2))
        runs += [run(OURS, trial, experiment="blocks", settings={"block_size": size}) for size in (1, 60)]
        runs += [run(OURS, trial, experiment="keepalive", settings={"keep_alive": s}) for s in (1.0, 60.0)]
        runs.append(run("shared-full", trial, experiment="keepalive", settings={"keep_alive": 60.0}))
        runs += [run(OURS, trial, experiment="tenants", tenants=count) for count in (1, 32)]
        runs += [
            run(name, trial, experiment="pressure", workload=limit, tenants=1, memory_charged=900_000_000)
            for name in (OURS, "llama.cpp")
            for limit in ("100 %", "50 %")
        ]
        runs.append(overhead(trial))
    made = results(*runs)
    made.left_out.append(
        LeftOut(
            experiment="pressure",
            strategy="shared-full",
            workload="35 %",
            tenants=1,
            settings={},
            reason="it was <killed>",
        )
    )
    return made


def overhead(trial: int) -> Run:
    """With cold starts of 15 ms, and two instances that take half of the memory."""
    usage = replace(run(OURS).usage, pss={"orchestrator": [10**8] * 2, "instances": [10**8] * 2})
    return run(
        OURS, trial, experiment="overhead", usage=usage, steps=10, phases={"dense": 1.0, "compute": 2.0},
        cold_start_phases={"fork": (4, 0.02), "first call": (4, 0.04)}, instances=2,
    )  # fmt: skip


class Page(HTMLParser):
    """What a page fetches, and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.said: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.fetched += [v for name, v in attrs if name in ("src", "href", "xlink:href") and v and v[0] != "#"]

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_a_page_of_everything(tmp_path: Path) -> None:
    page, tables, *images = write({"one": everything()}, tmp_path / "out")
    text = page.read_text()
    read = Page(text)
    said = " ".join(read.said)
    assert read.fetched == []
    assert not {"script", "link", "img"} & read.tags
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(read.ids) == len(set(read.ids))
    for title in ("Strategies", "Block size", "Overhead", "Keep-alive", "Number of tenants", "Memory pressure"):
        assert title in said
    assert "1 reached" in said
    assert "3.00 †" in said  # a gigabyte of two tenants, for six
    assert "shared-full, 35 %, 1 tenant: it was <killed>" in said
    assert "compute (faasmoe-shared)" in said
    assert re.search(r"15\.0\s+50\.0\s+0\.0150\s+0\.0600", said)  # waiting holds four times an instance's memory
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)
    assert len(images) == text.count("<figure>") == 24
    assert tables.read_text().count("\n### ") == 6


def test_charts_are_sound_and_take_their_colours_from_the_page(tmp_path: Path) -> None:
    page = write({"one": everything()}, tmp_path)[0].read_text()
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert drawings
    for drawing in drawings:
        ET.fromstring(drawing)
        names = re.findall(r'id="([^"]+)"', drawing)
        assert all(target in names for target in re.findall(r"url\(#([^)]+)\)", drawing))
        assert "var(--ink, #24292f)" in drawing


def test_what_was_not_run_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results(run(OURS, workload="bursty", requests=[])).save(tmp_path / "some.json")
    results().save(tmp_path / "none.json")
    files = [str(tmp_path / name) for name in ("some.json", "none.json")]
    assert faasmoe(monkeypatch, "evaluate", "report", *files, "--out", str(tmp_path / "out")) == 0
    assert "report.html, with 4 charts as PNG" in capsys.readouterr().out.replace("\n", " ")
    said = " ".join(Page((tmp_path / "out" / "report.html").read_text()).said)
    assert "Strategies, workload bursty" in said
    assert "Block size" not in said
    assert "nothing was measured" in said


def test_files_of_one_name_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        results().save(tmp_path / folder / "results.json")
    files = [str(tmp_path / folder / "results.json") for folder in ("a", "b")]
    assert faasmoe(monkeypatch, "evaluate", "report", *files, "--out", str(tmp_path)) == 2
    assert "two files of results are named results: rename one of them" in " ".join(
        capsys.readouterr().err.split()
    )


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OptionError, match=r"pip install matplotlib"):
        write({"one": results(run(OURS))}, tmp_path)
