from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from faasmoe.util import logs

log = logging.getLogger("faasmoe.somewhere")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FAASMOE_LOG", "text:warning")
    root, ours = logging.getLogger(), logging.getLogger("faasmoe")
    handlers, level, own = root.handlers[:], root.level, ours.level
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(own)


def fail(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        raise KeyError(text) from error


def test_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("gateway", "text", "info")
    log.info("request %s", "ended", extra={"request": "r1", "tenant": "", "seconds": 0.0})
    log.debug("not this")
    line = capsys.readouterr().err
    wanted = r"\d{4}-\d\d-\d\dT[\d:.]+Z INFO gateway faasmoe\.somewhere: request ended request=r1 seconds=0\.0\n"
    assert re.fullmatch(wanted, line)


def test_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("gateway", "json", "debug")
    log.debug("request\n%s", "ended", extra={"request": "r1", "tenant": "t", "seconds": 0.5})
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", said.pop("time"))
    assert said == {
        "level": "DEBUG",
        "process": "gateway",
        "logger": "faasmoe.somewhere",
        "message": "request\nended",
        "request": "r1",
        "tenant": "t",
        "seconds": 0.5,
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_errors_are_told_by_type_and_place(capsys: pytest.CaptureFixture[str], form: logs.Format) -> None:
    logs.configure("gateway", form, "info")
    try:
        fail("SEC" + "RET")
    except KeyError:
        log.exception("it failed")
    said = capsys.readouterr().err
    assert "SECRET" not in said
    assert all(part in said for part in ("it failed", "KeyError", "caused by", "ValueError", "in fail"))


def test_a_process_logs_as_the_one_that_started_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("gateway", "json", "debug")
    logs.inherit("platform")
    log.debug("x")
    assert json.loads(capsys.readouterr().err)["process"] == "platform"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_forked_process_has_a_name_and_counts_of_its_own(
    capsys: pytest.CaptureFixture[str], form: logs.Format
) -> None:
    logs.configure("zygote", form, "debug")
    for _ in range(1000):
        log.warning("again and again")
    said = len(capsys.readouterr().err.splitlines())
    logs.rename("instance")
    for _ in range(1000):
        log.warning("again and again")
    log.debug("levels stay")
    *lines, last = capsys.readouterr().err.splitlines()
    assert len(lines) == said < 100
    assert all("instance" in line and "zygote" not in line for line in [*lines, last])
    assert "levels stay" in last


def test_without_one_only_warnings_are_logged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAASMOE_LOG")
    logs.inherit("platform")
    log.info("no")
    log.warning("yes")
    assert "WARNING platform faasmoe.somewhere: yes" in capsys.readouterr().err


def test_libraries_log_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("gateway", "text", "debug")
    logging.getLogger("a.library").info("what nobody has read")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_a_thousand_times_is_a_few_lines(capsys: pytest.CaptureFixture[str], form: logs.Format) -> None:
    logs.configure("gateway", form, "info")
    for i in range(1000):
        log.error("no descriptor is left for %d", i)
        logging.getLogger("asyncio").error("socket.accept() out of system resource\nsocket: fd=%d", i)
    logs.inherit("gateway")  # closes the handler, as the end of a process does
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) < 50
    assert sum("repeated 990 more times" in line for line in lines) == 2


def test_an_error_of_a_thousand_frames_is_a_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("gateway", "text", "info")

    def deeper(depth: int) -> None:
        if depth == 0:
            raise ValueError
        between(depth - 1)

    def between(depth: int) -> None:  # so that frames are not folded as repetitions of one
        deeper(depth)

    try:
        deeper(200)
    except ValueError:
        log.exception("it failed")
    assert len(capsys.readouterr().err) < 6000
