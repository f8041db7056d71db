from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.tiny import save_tiny
from tests.unit.cli.commands import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect", "/gone"], "no such folder: /gone"),
        (["inspect", "--block-size", "0"], "--block-size 0: must be a whole number, at least 1"),
        (["inspect", "--block-size", "61"], "--block-size 61: must be 1 to 60"),
        (["serve", "--drain-seconds", "nan"], "--drain-seconds nan: must be 0 to 86400"),
        (["serve", "--drain-seconds", "inf"], "--drain-seconds inf: must be 0 to 86400"),
        (["serve", "--drain-seconds", "-1"], "--drain-seconds -1: must be 0 to 86400"),
        (
            ["serve", "--max-orchestrators", "3"],
            "--max-orchestrators 3: with --strategy shared it is --orchestrators",
        ),
        (
            ["serve", "--strategy", "private", "--orchestrators", "3"],
            "--orchestrators 3: with --strategy private it is --max-orchestrators",
        ),
        (
            ["serve", "--orchestrator-keep-alive", "nan"],
            "--orchestrator-keep-alive nan: must be at least 0, or inf",
        ),
        (["serve", "--block-size", "61"], "--block-size 61: must be 1 to 60"),
        (["serve", "--max-model-len", "2049"], "--max-model-len 2049: must be 2 to 2048, the model's context"),
        (["serve", "--memory-budget", "4"], "--memory-budget 4: must be a size with its unit, such as 4GiB"),
        (["serve", "--kv-cache-memory", "100TiB"], "--kv-cache-memory 100TiB: 109951.16 GB, and "),
        (["serve", "--quantize", "int8", "--dtype", "float32"], "--dtype float32: int8 weights"),
        (["serve", "--prices", "/gone"], "--prices /gone"),
        (["serve", "--database", "x.db"], "--database x.db: give sqlite:"),
        (["serve", "--trusted-proxies", "x"], "--trusted-proxies x: must be addresses"),
        (["serve", "--dtype", "x"], "--dtype 'x' is not one of 'auto'"),
        (["serve", "--nothing"], "No such option: --nothing"),
        (["serve", "/gone"], "no such folder: /gone"),
        (["generate", "--prompt", ""], "--prompt '': must have a character at least"),
        (["generate", "--prompt", "x", "--temperature", "3"], "--temperature 3: must be 0 to 2"),
        (["generate", "--prompt", "x", "--max-tokens", "2048"], "--max-tokens 2048: must be less than 2048"),
        (["generate", "--prompt", "x", "--block-size", "61"], "--block-size 61: must be 1 to 60"),
        (["generate", "--prompt", "x", "--max-model-len", "9999"], "--max-model-len 9999: must be 2 to 2048"),
        (["serve", "--platform", "nothing"], "--platform nothing: must be one of inline, local"),
        (
            ["serve", "--platform", "inline"],
            "--platform inline: only the process that starts its functions can call",
        ),
        (["functions", "--platform", "inline"], "--platform inline: only the process that starts its functions"),
        (
            ["generate", "--prompt", "x", "--platform", "nothing"],
            "--platform nothing: must be one of inline, local",
        ),
        (["generate", "--prompt", "x", "--platform", "inline", "--keep-alive", "9"], "does not take --keep-alive"),
        (
            ["generate", "--prompt", "x", "--platform", "inline", "--memory-budget", "1MiB"],
            "does not take --memory-b",
        ),
        (["evaluate", "strategies", "--out", "x", "--platform", "nothing"], "--platform nothing: must be one of"),
        (["serve", "--platform-option", "zone"], "--platform-option zone: must be NAME=VALUE"),
        (
            ["functions", "--platform-option", "zone=1"],
            "zone=1: the options of platform local are: zygote_keep_alive",
        ),
        (
            ["generate", "--prompt", "x", "--platform-option", "zygote_keep_alive=never"],
            "--platform-option zygote_keep_alive=never: must be of type float",
        ),
        (
            ["generate", "--prompt", "x", "--platform-option", "zygote_keep_alive=-1"],
            "--platform local: zygote_keep_alive is -1.0: must be at least 0 seconds",
        ),
        (
            ["evaluate", "overhead", "--out", "x", "--platform-option", "keep_alive=3"],
            "--platform-option keep_alive=3: must be given as --keep-alive",
        ),
        (
            ["evaluate", "overhead", "--out", "x", "--platform", "inline", "--platform-option", "zone=1"],
            "the options of platform inline are: none",
        ),
        (
            ["evaluate", "pressure", "--out", "x", "--platform", "inline", "--keep-alive", "9"],
            "does not take --keep-",
        ),
        (["models", "make", "gpt-5", "--out", "x"], "no such geometry"),
        (["models", "record", "--text", "/gone", "--out", "x"], "--text file '/gone' does not exist"),
        (["plan", "--block-size", "61"], "--block-size 61: must be 1 to 60"),
        (["plan", "--memory", "16"], "--memory 16: must be a size with its unit"),
        (["plan", "--routing", "/gone"], "--routing file '/gone' does not exist"),
        (["plan", "--routing", __file__], "holds no recorded activations"),
        (["plan", "--replay", "/gone"], "--replay file '/gone' does not exist"),
        (["plan", "--layers", "3"], "--layers 3: is for published geometries only"),
        (["plan", "--keep-alive", "0"], "--keep-alive 0: must be at least 0.1"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    for opened in (
        "cli.server.serve.bind",
        "cli.server.serve.open_tenancy",
        "platforms.local.entry.LocalPlatform",
    ):
        monkeypatch.setattr(f"faasmoe.{opened}", lambda *_: nullcontext())
    assert run(monkeypatch, *arguments) == 2
    err = capfd.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("serve", "generate", "inspect", "models"))


def test_inspect_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "inspect", "--json", "--block-size", "7") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["servable"], facts["experts"], facts["functions"]) == (True, 60, 6 * 9)


def test_inspect_says_why_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    save_tiny("doge", tmp_path)
    assert run(monkeypatch, "inspect", "--json", str(tmp_path)) == 2
    facts = json.loads(capsys.readouterr().out)
    assert facts["servable"] is False
    assert facts["reason"].startswith("doge is not a Mixture-of-Experts model that transformers dispatches")


def test_plan_says_what_to_use_for_people_and_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = ["--rate", "0.01", "--strategy", "shared", "--block-size", "10", "--block-size", "60"]
    assert run(monkeypatch, "plan", *choice, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert {row["block_size"] for row in facts["predictions"]} == {10, 60}
    assert facts["recommended"] in facts["predictions"]
    assert run(monkeypatch, "plan", *choice) == 0
    assert f"faasmoe serve --block-size {facts['recommended']['block_size']}" in capsys.readouterr().out


def test_plan_of_a_published_geometry_says_how_to_make_what_it_serves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = ["olmoe-1b-7b", "--layers", "2", "--rate", "0.01", "--strategy", "shared", "--block-size", "10"]
    assert run(monkeypatch, "plan", *choice) == 0
    shown = capsys.readouterr().out
    assert "faasmoe models make olmoe-1b-7b --layers 2 --out ./olmoe-1b-7b " in shown
    assert "faasmoe serve ./olmoe-1b-7b --block-size 10" in shown


def test_plan_says_when_nothing_is_possible(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "plan", "--memory", "100MiB", "--block-size", "10", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["recommended"] is None
    assert "hold no setting" in facts["reason"]
