from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.database.schema import open_database


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables, made once: that takes longer than most tests."""
    file = tmp_path_factory.mktemp("tenancy") / "empty.db"
    open_database(f"sqlite:///{file}").close()
    return file


@pytest.fixture
def url(tmp_path: Path, empty: Path) -> str:
    shutil.copy(empty, tmp_path / "tenants.db")
    return f"sqlite:///{tmp_path / 'tenants.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with open_database(url) as opened:
        yield opened
