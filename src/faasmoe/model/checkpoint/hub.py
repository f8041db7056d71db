"""Models of the Hugging Face hub: small files are fetched first, weights only if the model can be served.

Of the weights exactly the files that will be loaded are fetched: not those of other formats, precisions and layouts
that lie beside them. All of it is of one commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import DryRunError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from faasmoe.errors import CheckpointError, UserError, brief
from faasmoe.model.checkpoint.child_process import run_apart
from faasmoe.model.checkpoint.files import BESIDE_WEIGHTS
from faasmoe.model.checkpoint.folder import CONFIG_FILE, check_folder, no_config, no_weights
from faasmoe.model.checkpoint.gguf.folder import SHARD
from faasmoe.model.checkpoint.json_file import quoted, read_json
from faasmoe.model.checkpoint.weight_files import INDEX_FILE, INDEX_SUFFIX, SINGLE_FILE, explicit, read_index

_IN_FOLDERS = "*/*"
# what shows of which kind a repository is that has no config, or no weights that are served
_TELLTALES = ["*.gguf", "*.bin", "*.pth", "*.h5", "*.msgpack", "*.onnx", "consolidated*", "params.json",
              "*/config.json", "model_index.json", "modules.json", "*.safetensors"]  # fmt: skip


def fetch(model: str, *, config_only: bool, revision: str | None = None) -> Path:
    """The folder of the hub's `model` in the local cache; without weights if `config_only`.

    `revision` is a branch, a tag or a commit, by default the main branch.

    Files in the cache are not fetched again; without a network the model is what the cache holds. Raises `UserError` if
    the model cannot be fetched, or its config, tokenizer or layout cannot be served: then no weights were fetched.
    """
    with _explained(model):
        folder = _snapshot(model, [CONFIG_FILE] if config_only else BESIDE_WEIGHTS, revision)
        if not (folder / CONFIG_FILE).is_file() and not (folder / "adapter_config.json").is_file():
            raise no_config(model, _names(model, revision))
        check_folder(folder, weights=False)
        if config_only:
            return folder
        if (named := read_json(folder / CONFIG_FILE).get("transformers_weights")) is not None:
            named = explicit(folder, named).name
        if not _has_weights(folder, named):
            names = _weights(model, folder, named)
            _check_servable(folder)
            _snapshot(model, [escape(name) for name in names], folder.name)
    check_folder(folder)
    return folder


def fetch_gguf(model: str, file: str, *, revision: str | None = None) -> Path:
    """The GGUF file of the hub's `model` in the local cache, with the others if it is the first of several.

    Raises `CheckpointError` if there is no such file, or it cannot be fetched.
    """
    with _explained(model):
        wanted = [escape(file)]
        if (parts := SHARD.fullmatch(file)) is not None:
            wanted = [f"{escape(parts['stem'])}-?????-of-{parts['count']}.gguf"]
        found = _snapshot(model, wanted, revision) / file
        if not found.is_file():
            there = [name for name in _names(model, revision) if name.endswith(".gguf")]
            raise CheckpointError(
                f"{model} holds no file {quoted(file)}; its GGUF files are {', '.join(there) or 'none'}"
            )
    return found


def _snapshot(model: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    return Path(
        snapshot_download(model, revision=revision, allow_patterns=list(patterns), ignore_patterns=[_IN_FOLDERS])
    )


def _names(model: str, revision: str | None) -> list[str]:
    """Names of its files, as far as they show what it is."""
    found = snapshot_download(model, revision=revision, allow_patterns=_TELLTALES, dry_run=True)
    return [file.filename for file in found]


def _has_weights(folder: Path, named: str | None) -> bool:
    """Whether all weights are in the cache."""
    if named is None and (folder / SINGLE_FILE).is_file():
        return True
    index = folder / (named or INDEX_FILE)
    if not index.name.endswith(INDEX_SUFFIX):
        return index.is_file()
    return index.is_file() and all((folder / name).is_file() for name in read_index(index).values())


def _weights(model: str, folder: Path, named: str | None) -> list[str]:
    """Names of the files to fetch, in the order of `weight_files`. The folder's name is its commit on the hub."""
    first, index = named or SINGLE_FILE, folder / (named or INDEX_FILE)
    if not first.endswith(INDEX_SUFFIX) and snapshot_download(
        model, revision=folder.name, allow_patterns=[escape(first)], dry_run=True
    ):
        return [first]
    if not index.name.endswith(INDEX_SUFFIX) or not index.is_file():
        raise no_weights(model, _names(model, folder.name))
    return sorted(set(read_index(index).values()))


def _check_servable(folder: Path) -> None:
    """Check config and tokenizer, which needs torch. Raises the `UserError` that says what is in the way."""
    run_apart("faasmoe.model.servable", [str(folder)], f"{folder}: whether its config can be served")


@contextmanager
def _explained(model: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (LocalEntryNotFoundError, DryRunError) as error:
        raise CheckpointError(
            f"{model} is no folder here, is not in the local cache, and the Hugging Face hub cannot be reached; "
            f"download it where there is a network, or give a folder"
        ) from error
    except HFValidationError as error:
        raise CheckpointError(f"{model} is neither a folder nor a valid hub id: {brief(error)}") from error
    except HfHubHTTPError as error:
        raise CheckpointError(f"{model} cannot be had from the Hugging Face hub: {brief(error)}") from error
    except Exception as error:  # a full disk, and whatever the hub's client takes for its connections
        raise CheckpointError(
            f"{model} cannot be downloaded: {brief(error)}; files that have come are kept for another try"
        ) from error
