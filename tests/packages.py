"""Packages that are installed for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.platforms import registry


def install_platform(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, place: str) -> None:
    """Have a package bring the platform `name`, whose entry is `place`: metadata on the path, as pip leaves it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {place}\n")
    monkeypatch.syspath_prepend(folder)
    registry.find.cache_clear()
