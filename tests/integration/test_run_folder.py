"""A start removes nothing of the user's, and ends nobody but the processes of a run folder that is abandoned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from faasmoe.util.folders.run_folder import RunFolder
from tests.waiting import alive, wait_until

START = "from faasmoe.platforms.local.platform import LocalPlatform; LocalPlatform().close()"
OWNER = (
    "import subprocess, sys, time; from faasmoe.util.folders.run_folder import RunFolder; f = RunFolder();"
    "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], pass_fds=[f.members]);"
    "print(f.path, c.pid, flush=True); time.sleep(60)"
)
READER = "import sys, time; f = open(sys.argv[1] + '/members'); print('open', flush=True); time.sleep(60)"


def test_a_start_leaves_folders_of_the_user_alone(runtime: Path) -> None:
    results, model = runtime / "faasmoe-results", runtime / "faasmoe-demo-copy"
    results.mkdir()
    (results / "results.json").write_text("{}")
    model.mkdir()
    (model / "config.json").write_text("{}")
    for folder in (results, model):
        os.utime(folder, (0, 0))
    environment = {**os.environ, "TMPDIR": str(runtime)}
    environment.pop("XDG_RUNTIME_DIR", None)
    command = [sys.executable, "-c", START, "generate", str(model)]  # it must not end itself for its argument
    subprocess.run(command, env=environment, check=True)
    assert (results / "results.json").read_text() == "{}"
    assert (model / "config.json").read_text() == "{}"
    assert list((runtime / f"faasmoe-{os.getuid()}").iterdir()) == []


def test_members_of_an_abandoned_folder_are_ended_and_nobody_else(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder, member = owner.stdout.readline().split()
        reader = subprocess.Popen([sys.executable, "-c", READER, folder], stdout=subprocess.PIPE, text=True)
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "open\n"
            with RunFolder():
                assert alive(int(member))
            owner.kill()
            owner.wait()
            with RunFolder():
                assert not Path(folder).exists()
            assert wait_until(lambda: not alive(int(member)))
            assert reader.poll() is None  # it names the folder and has its file open, and holds no lock
        finally:
            reader.kill()
            reader.communicate()
