"""The platform that the suite runs through: `pytest tests/conformance --platform NAME`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from examples.own_platform import NAME

from faasmoe.platforms import registry
from faasmoe.platforms.base import FunctionSpec, Platform
from tests import nodes, ray_nodes
from tests.packages import install_platform

PLATFORMS = ("local", "inline", "nodes", NAME)  # the last is that of the example, which a package brings


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "platform" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--platform")
        metafunc.parametrize("platform", [asked] if asked else PLATFORMS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        given: dict[str, object] = {}
        if request.param == NAME:
            install_platform(patch, tmp_path_factory.mktemp("packages"), NAME, "examples.own_platform:ENTRY")
        if request.param == "nodes":
            folder = tmp_path_factory.mktemp("cluster")
            stack.enter_context(nodes.cluster(folder))
            given = nodes.options(folder)
        if request.param == "ray":
            if not ray_nodes.INSTALLED:
                pytest.skip(ray_nodes.MISSING)
            given = stack.enter_context(ray_nodes.ray_nodes()).options(node_gib=1.5)
        yield stack.enter_context(registry.start(request.param, (), **given))


@pytest.fixture(autouse=True)
def nothing_deployed(platform: Platform) -> Iterator[None]:
    yield
    platform.remove([status.name for status in platform.status().functions])


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.write_text("A:")
    return path


def spec(name: str, handler: str, artifact: Path, **options: object) -> FunctionSpec:
    return FunctionSpec(name, f"tests.functions:{handler}", artifact, **options)


def naming(file: Path) -> Path:
    """An artifact, beside `file`, that names it. See `functions.named`."""
    artifact = file.with_name(f"{file.name}.artifact")
    artifact.write_text(str(file))
    return artifact


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds
