"""Every import contract in pyproject.toml catches the imports that it forbids, also by way of other modules."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter import Contract, configuration
from importlinter.application import use_cases
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract
from importlinter.contracts.protected import ProtectedContract

ROOT = Path(__file__).parents[2]
configuration.configure()
SETTINGS = use_cases.read_user_options(str(ROOT / "pyproject.toml"))
CONTRACTS: dict[str, dict[str, Any]] = {each["name"]: each for each in SETTINGS.contracts_options}
KINDS = {
    "acyclic_siblings": AcyclicSiblingsContract,
    "forbidden": ForbiddenContract,
    "layers": LayersContract,
    "protected": ProtectedContract,
}
FORBIDDEN = [name for name, each in CONTRACTS.items() if each["type"] == "forbidden"]
ACYCLIC = [name for name, each in CONTRACTS.items() if each["type"] == "acyclic_siblings"]
PROTECTED = [name for name, each in CONTRACTS.items() if each["type"] == "protected"]
LAYERS = [name for name, each in CONTRACTS.items() if each["type"] == "layers"]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports of the package."""
    return grimp.build_graph("faasmoe", include_external_packages=True, cache_dir=None)


def contract(name: str) -> Contract:
    kind = KINDS[CONTRACTS[name]["type"]]
    options = {key: value for key, value in CONTRACTS[name].items() if key not in ("name", "type")}
    return kind(name, SETTINGS.session_options, options)


def kept(graph: grimp.ImportGraph, name: str) -> bool:
    return contract(name).check(graph, verbose=False).kept


def modules(graph: grimp.ImportGraph, package: str) -> list[str]:
    """The package or module, and all modules below it."""
    return sorted(each for each in graph.modules if each == package or each.startswith(f"{package}."))


def caught(graph: grimp.ImportGraph, name: str, importer: str, imported: str) -> bool:
    """Whether the contract is broken by one more import. Leaves the graph as it was."""
    there = imported in graph.modules
    if graph.direct_import_exists(importer=importer, imported=imported):
        return not kept(graph, name)
    if not there:
        graph.add_module(imported, is_squashed=True)  # a package outside that nobody imports yet
    graph.add_import(importer=importer, imported=imported)
    try:
        return not kept(graph, name)
    finally:
        graph.remove_import(importer=importer, imported=imported)
        if not there:
            graph.remove_module(imported)


def intermediary(graph: grimp.ImportGraph, given: dict[str, Any], source: str) -> str | None:
    """A module outside the contract's sources that `source` imports, so that the contract must look beyond it."""
    own = {each for package in given["source_modules"] for each in modules(graph, package)}
    banned = {each for package in given["forbidden_modules"] for each in modules(graph, package)}
    for module in modules(graph, source):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if imported.startswith("faasmoe.") and imported not in own | banned:
                return imported
    return None


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_is_kept(graph: grimp.ImportGraph, name: str) -> None:
    assert kept(graph, name)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_rogue_import_is_caught(graph: grimp.ImportGraph, name: str) -> None:
    given = CONTRACTS[name]
    for source, forbidden in itertools.product(given["source_modules"], given["forbidden_modules"]):
        importer, imported = modules(graph, source)[-1], (modules(graph, forbidden) or [forbidden])[-1]
        assert caught(graph, name, importer, imported), f"{importer} may import {imported}"


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_rogue_import_by_way_of_another_module_is_caught(graph: grimp.ImportGraph, name: str) -> None:
    given = CONTRACTS[name]
    for source in given["source_modules"]:
        if way := intermediary(graph, given, source):
            imported = modules(graph, given["forbidden_modules"][0])[-1]
            assert caught(graph, name, way, imported), f"{source} may import {imported} by way of {way}"


def upward(layers: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a package and one that it may not import: a layer above, or another of its own."""
    rows = [[each.strip() for each in layer.replace("|", ":").split(":")] for layer in layers]
    for i, row in enumerate(rows):
        for lower in row:
            above = rows[i - 1] if i else []  # imports of layers further up are caught by the same rule
            yield from ((lower, upper) for upper in above)


@pytest.mark.parametrize("name", LAYERS)
def test_an_import_upwards_is_caught(graph: grimp.ImportGraph, name: str) -> None:
    (container,) = CONTRACTS[name]["containers"]
    for lower, upper in upward(CONTRACTS[name]["layers"]):
        importer, imported = (modules(graph, f"{container}.{each}")[-1] for each in (lower, upper))
        assert caught(graph, name, importer, imported), f"{importer} may import {imported}"


@pytest.mark.parametrize("name", LAYERS)
def test_a_package_without_a_layer_is_caught(graph: grimp.ImportGraph, name: str) -> None:
    (container,) = CONTRACTS[name]["containers"]
    graph.add_module(f"{container}.rogue")
    try:
        assert not kept(graph, name)
    finally:
        graph.remove_module(f"{container}.rogue")


@pytest.mark.parametrize("name", ACYCLIC)
@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("faasmoe.model.checkpoint.header", "faasmoe.model.weights.layout"),
        ("faasmoe.api.errors", "faasmoe.api.http.server"),
        ("faasmoe.engine.experts.grouping", "faasmoe.engine.engine"),
        ("faasmoe.tenancy.tenants", "faasmoe.tenancy.limits.limits"),
        ("faasmoe.experts.kernels.library", "faasmoe.experts.formats.int8"),
    ],
)
def test_a_cycle_is_caught(graph: grimp.ImportGraph, name: str, lower: str, upper: str) -> None:
    assert caught(graph, name, lower, upper)


@pytest.mark.parametrize("name", PROTECTED)
def test_an_import_from_outside_is_caught(graph: grimp.ImportGraph, name: str) -> None:
    outside = [each for each in graph.find_children("faasmoe") if each != "faasmoe.platforms"]
    shared = [each for each in graph.find_children("faasmoe.platforms") if not graph.find_children(each)]
    assert "faasmoe.platforms.registry" in shared
    for importer in [*(modules(graph, each)[-1] for each in outside), *shared]:
        for imported in ("faasmoe.platforms.local.entry", "faasmoe.platforms.inline.platform"):
            assert caught(graph, name, importer, imported), f"{importer} may import {imported}"


@pytest.mark.parametrize("name", PROTECTED)
def test_the_folder_of_another_platform_is_protected_as_soon_as_it_is_there(
    graph: grimp.ImportGraph, name: str
) -> None:
    folder = ("faasmoe.platforms.another", "faasmoe.platforms.another.entry", "faasmoe.platforms.another.client")
    for module in folder:
        graph.add_module(module)
    try:
        graph.add_import(importer=folder[1], imported=folder[2])
        assert kept(graph, name)
        assert caught(graph, name, "faasmoe.cli.generate", folder[1])
    finally:
        for module in folder:
            graph.remove_module(module)
