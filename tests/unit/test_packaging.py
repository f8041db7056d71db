"""What an installation brings."""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

from faasmoe.model.adapter.torch_build import CPU_INDEX

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_-]+", requirement)
    assert found, requirement
    return found[0].lower()


def test_every_direct_dependency_has_a_version_that_the_tests_ran_with():
    listed = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    listed += SETTINGS["build-system"]["requires"]
    wanted = {name_of(requirement) for requirement in listed} - {"faasmoe"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line) for line in lines if re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*", line)}
    assert len(wanted) > 30
    assert wanted - pinned == set()


def test_packages_on_whose_internals_the_code_relies_have_an_upper_bound():
    bounded = {name_of(requirement) for requirement in PROJECT["dependencies"] if "<" in requirement}
    assert bounded >= {"h11", "torch", "transformers", "typer", "uvicorn"}


def test_the_function_alone_is_built_from_the_same_requirements():
    function = tomllib.loads((ROOT / "function" / "pyproject.toml").read_text())
    assert function["build-system"] == SETTINGS["build-system"]
    assert function["project"]["requires-python"] == PROJECT["requires-python"]
    assert function["project"]["dependencies"] == [each for each in PROJECT["dependencies"] if each[:5] == "numpy"]


def test_the_readme_says_how_torch_comes_without_cuda():
    start = (ROOT / "README.md").read_text().split("## Your model")[0]
    (pinned,) = (
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    assert f"pip install --index-url {CPU_INDEX} {pinned} " in start
    assert re.search(r"^uv pip install --torch-backend cpu .*-c constraints.txt \.", start, re.MULTILINE)
    setup = (ROOT / "scripts/setup").read_text()
    assert f"{{FAASMOE_TORCH_INDEX:-{CPU_INDEX}}}" in setup


def test_the_readme_calls_the_command_in_one_way_only():
    for file in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        assert not re.search(r"(?<!/opt/faasmoe/)\.venv/bin/faasmoe ", file.read_text()), file


def test_what_examples_import_is_said_where_they_are_named():
    told = (ROOT / "README.md").read_text()
    assert re.search(r"pip install openai.*examples/chat\.py", told, re.DOTALL)
    assert told.index(". .venv/bin/activate") < told.index("pip install openai"), (
        "Debian's own pip refuses to install"
    )


def test_no_hint_names_extras_of_a_package_that_no_index_has():
    hints = [path for path in ROOT.joinpath("src").rglob("*.py") if "pip install 'faasmoe[" in path.read_text()]
    assert hints == []


def test_no_example_has_the_name_of_a_module_of_python() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names & sys.stdlib_module_names == set()  # it would be imported instead by the examples beside it
