from __future__ import annotations

import errno
from pathlib import Path

import pytest
from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError

from faasmoe.errors import CheckpointError
from faasmoe.model.checkpoint import hub, source


def test_nothing_is_the_demo() -> None:
    found = source.resolve(None)
    assert found.name == "faasmoe-demo"
    assert (found.folder / "model.safetensors").stat().st_size > 1_000_000


def test_a_folder_is_served_under_its_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no config\.json, so it is no Hugging Face checkpoint"):
        source.resolve(str(tmp_path))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).touch()
    assert source.resolve(str(tmp_path)) == source.ModelSource(tmp_path.name, tmp_path)


def test_a_snapshot_of_the_hubs_cache_is_served_under_its_models_name(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--tiny-moe" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (snapshot / name).touch()
    assert source.resolve(str(snapshot)) == source.ModelSource("org/tiny-moe", snapshot)


@pytest.mark.parametrize("name", ["/no/such/folder", "./gone", "gone", "a/b/c"])
def test_what_is_no_folder_and_no_hub_id(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"no such folder: {name}"):
        source.resolve(name)


class ClientError(Exception):
    """As the hub's client takes them from the library that it has for HTTP."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalEntryNotFoundError("long story"), "is no folder here, is not in the local cache, and the"),
        (DryRunError("long story"), "is no folder here, is not in the local cache, and the"),
        (
            OSError(errno.ENOSPC, "No space left"),
            "cannot be downloaded: .*No space left; files that have come are kept",
        ),
        (ClientError("peer closed\nconnection"), "cannot be downloaded: peer closed connection; files"),
    ],
)
def test_an_unreachable_hub_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=f"^org/name {said}"):
        source.resolve("org/name")
