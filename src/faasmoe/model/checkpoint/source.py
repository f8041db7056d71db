"""Sources of models: the bundled demo, a folder, or the Hugging Face hub. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faasmoe.errors import CheckpointError
from faasmoe.model.checkpoint import folder as folders
from faasmoe.model.checkpoint.gguf.folder import folder_of
from faasmoe.model.checkpoint.gguf.header import is_gguf

DEMO_NAME = "faasmoe-demo"
# folders of `huggingface_hub`'s cache: models--ORG--NAME/snapshots/COMMIT
_CACHED, _SNAPSHOTS = "models--", "snapshots"
_HUB_ADDRESSES = ("https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "hf.co/")


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint folder and the name under which it is served."""

    name: str
    folder: Path


def is_hub_id(model: str | None) -> bool:
    """Whether `model` has the form of a hub id and names no path of this machine."""
    if model is None or Path(model).expanduser().exists():
        return False
    return model.count("/") == 1 and not model.startswith((".", "/", "~"))


def resolve(model: str | None, *, config_only: bool = False) -> ModelSource:
    """Find `model`: None for the demo, else a folder or a GGUF file, else a hub id, which is downloaded, or its config.

    A hub id may be `ORGANISATION/NAME@REVISION`; the model is served as ORGANISATION/NAME. A GGUF file on the hub is
    `ORGANISATION/NAME:FILE`, or with the revision before the colon, and is served under the file's name.

    Raises `CheckpointError` if there is nothing of that name, it is no checkpoint, or the hub cannot be reached,
    `UnsupportedModel` if it is of another kind or format, or a config on the hub that cannot be served.
    """
    if model is None:
        return ModelSource(DEMO_NAME, Path(__file__).parents[1] / "demo")
    path = Path(model).expanduser()
    if path.is_dir():
        folders.check_folder(path, weights=not config_only)
        return ModelSource(_name_of(path.resolve()), path.resolve())
    if path.is_file() and is_gguf(path):
        return ModelSource(*folder_of(path.absolute()))
    if path.is_file():
        raise folders.no_folder(path)
    if model.startswith(_HUB_ADDRESSES):
        raise CheckpointError(f"{model} is an address; give the hub id: {_hub_id(model)}")
    if not is_hub_id(model):
        raise CheckpointError(f"no such folder: {model} (and it does not look like a hub id, ORGANISATION/NAME)")
    return _from_hub(model, config_only)


def _name_of(folder: Path) -> str:
    """The folder's name, or the hub id of a snapshot in the cache of the hub's client, whose own name is a commit's."""
    cached = folder.parents[1].name if folder.parent.name == _SNAPSHOTS else ""
    return "/".join(cached.split("--")[1:]) if cached.startswith(_CACHED) else folder.name


def _from_hub(model: str, config_only: bool) -> ModelSource:
    from faasmoe.model.checkpoint.hub import fetch, fetch_gguf  # noqa: PLC0415 - the hub's client is heavy, and folders need none of it

    name, file_follows, file = model.partition(":")
    name, at, revision = name.partition("@")
    if at and not revision:
        raise CheckpointError(f"{model} names no revision after @; leave it out for the main branch")
    if file_follows:
        return ModelSource(*folder_of(fetch_gguf(name, file, revision=revision or None)))
    return ModelSource(name, fetch(name, config_only=config_only, revision=revision or None))


def _hub_id(address: str) -> str:
    path = next(address.removeprefix(prefix) for prefix in _HUB_ADDRESSES if address.startswith(prefix))
    return "/".join(path.split("/")[:2])
