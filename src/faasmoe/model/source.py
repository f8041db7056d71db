"""Where a model comes from: the bundled demo, a folder, or the Hugging Face hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from faasmoe.errors import CheckpointError, brief

DEMO_NAME = "faasmoe-demo"
_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint folder and the name under which it is served."""

    name: str
    folder: Path


def config_file(folder: Path) -> Path:
    """Where a checkpoint has its config. Raises `CheckpointError` if there is none, or it is no file."""
    file = folder / "config.json"
    if not folder.is_dir():
        raise CheckpointError(f"no such folder: {folder}")
    if not file.is_file():
        what = "config.json that is not a file" if os.path.lexists(file) else "no config.json"
        raise CheckpointError(f"{folder} holds {what}, so it is no Hugging Face checkpoint")
    return file


def resolve(model: str | None, *, config_only: bool = False) -> ModelSource:
    """Find `model`: None for the demo, else a folder, else a hub id, which is downloaded, or its config alone.

    Raises `CheckpointError` if there is nothing of that name, it is no checkpoint, or the hub cannot be reached.
    """
    if model is None:
        return ModelSource(DEMO_NAME, Path(__file__).parent / "demo")
    folder = Path(model).expanduser()
    if folder.is_dir():
        config_file(folder)
        return ModelSource(folder.resolve().name, folder.resolve())
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise CheckpointError(f"no such folder: {model} (and it does not look like a hub id, ORGANISATION/NAME)")
    return ModelSource(model, _download(model, ["config.json"] if config_only else _PATTERNS))


def _download(model: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - heavy, and folders need none of it
    from huggingface_hub.errors import (  # noqa: PLC0415
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{model} is no folder here, is not in the local cache, and the Hugging Face hub cannot be reached; "
            f"download it where there is a network, or give a folder"
        ) from error
    except HFValidationError as error:
        raise CheckpointError(f"{model} is neither a folder nor a valid hub id: {error}") from error
    except HfHubHTTPError as error:
        raise CheckpointError(f"{model} cannot be had from the Hugging Face hub: {brief(error)}") from error
    except OSError as error:
        raise CheckpointError(f"{model} cannot be downloaded: {error}") from error
