"""Check that a folder, or a repository of the hub, is a checkpoint in the layout that is served.

If it is none, the error says what the folder holds. Without torch, and by names of files and their first bytes alone:
common mistakes are reported before anything is imported, downloaded or loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path

from faasmoe.errors import CheckpointError, UnsupportedModel, UserError
from faasmoe.model.checkpoint.files import read_by_loading
from faasmoe.model.checkpoint.gguf_link import LINK
from faasmoe.model.checkpoint.json_file import quoted, read_json
from faasmoe.model.checkpoint.weight_files import INDEX_FILE, SINGLE_FILE

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
SERVED = f"a folder with {CONFIG_FILE}, a tokenizer, and weights as safetensors is served"
# what transformers' tokenizers read their vocabularies from
VOCABULARIES = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.*", "vocab-*", "tekken.json", "source.spm")
_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024  # bytes; the specification says that they have fewer
_GGUF = "a GGUF file is served if its path is given, not its folder"
_BIN = "weights as PyTorch's .bin files are not served; save_pretrained of transformers writes safetensors"
_OWN = "weights in Mistral's or Meta's own layout are not served; take the model's version for transformers"
_FORMATS = (  # of weights that are not served: their files, and what to do
    ("*.gguf", _GGUF),
    ("pytorch_model*.bin", _BIN),
    ("consolidated*", _OWN),
    ("*.pth", _OWN),
    ("*.h5", "weights for TensorFlow are not served; save the model as safetensors"),
    ("*.msgpack", "weights for Flax are not served; save the model as safetensors"),
    ("*.onnx", "ONNX is not served; take the model's version for transformers"),
)
_OTHERS = (  # what has no config: a file that shows it, and what it is
    ("model_index.json", "it is a pipeline of diffusers, which makes images"),
    ("modules.json", "it is a model of sentence-transformers, which embeds texts"),
    ("params.json", "it is a model in Mistral's or Meta's own layout; take its version for transformers"),
    ("tokenizer_config.json", "it holds a tokenizer and no model"),
)


def check_folder(folder: Path, *, weights: bool = True) -> None:
    """Raises `UserError` if `folder` holds no checkpoint, or one in a format that is not served, and says which.

    Without `weights`, only the config and the files beside it have to be there.
    """
    config_file(folder)
    check_adapter(folder)
    try:
        pointers, names = list(_pointers(folder)), [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    if pointers:
        more = f" (so are {len(pointers) - 1} more)" if len(pointers) > 1 else ""
        raise CheckpointError(
            f"{pointers[0]} is a pointer of git-lfs and not the file itself{more}; run git lfs pull in the folder, or "
            "download it again"
        )
    if not weights:
        return
    own = {SINGLE_FILE, INDEX_FILE, LINK} & set(names)
    if not own and "transformers_weights" not in read_json(folder / CONFIG_FILE):
        raise no_weights(folder, names)
    check_vocabulary(folder)


def check_vocabulary(folder: Path) -> None:
    """Raises `CheckpointError` if `folder` holds no file that a tokenizer could have its vocabulary from."""
    if not vocabularies(folder):
        raise CheckpointError(f"{folder} holds no usable tokenizer: none of {', '.join(VOCABULARIES)}")


def vocabularies(folder: Path) -> list[str]:
    """Names of the files that tokenizers have their vocabularies from."""
    return sorted(file.name for file in folder.iterdir() if any(fnmatch(file.name, name) for name in VOCABULARIES))


def config_file(folder: Path) -> Path:
    """The path of a checkpoint's config. Raises `CheckpointError` if there is none, or it is no file."""
    file = folder / CONFIG_FILE
    if not folder.is_dir():
        raise CheckpointError(f"no such folder: {folder}")
    if file.is_file():
        return file
    if file.is_symlink() or file.exists():
        raise CheckpointError(
            f"{folder} holds {CONFIG_FILE} that is not a file, so it is no Hugging Face checkpoint"
        )
    check_adapter(folder)
    raise no_config(folder, [str(entry.relative_to(folder)) for entry in _entries(folder)])


def no_config(what: object, names: Collection[str]) -> UserError:
    """The error for a folder or repository `what` without config; `names` are its files and those of its folders."""
    inner = sorted(name.removesuffix(f"/{CONFIG_FILE}") for name in names if name.endswith(f"/{CONFIG_FILE}"))
    for name, kind in _OTHERS[:2]:
        if name in names:
            return UnsupportedModel(f"{what} holds no {CONFIG_FILE}: {kind}; {SERVED}")
    if inner:
        return CheckpointError(
            f"{what} holds no {CONFIG_FILE}, but {len(inner)} of its folders do; give one of them: "
            f"{', '.join(quoted(f'{what}/{name}') for name in inner[:3])}"
        )
    for name, kind in _OTHERS[2:]:
        if name in names:
            return UnsupportedModel(f"{what} holds no {CONFIG_FILE}: {kind}")
    if (known := _format(names)) is not None:
        return UnsupportedModel(f"{what} holds no {CONFIG_FILE}, but {known}")
    return CheckpointError(f"{what} holds no {CONFIG_FILE}, so it is no Hugging Face checkpoint")


def no_weights(what: object, names: Collection[str]) -> UserError:
    """The error for a folder or repository `what` that has a config, and no weights that could be loaded."""
    if (known := _format(names)) is not None:
        return UnsupportedModel(f"{what} holds neither {SINGLE_FILE} nor {INDEX_FILE}, but {known}")
    others = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    also = f"; a file is named {quoted(others[0])}" if others else ""
    return CheckpointError(f"{what} holds neither {SINGLE_FILE} nor {INDEX_FILE}{also}")


def no_folder(path: Path) -> UserError:
    """The error for a MODEL that is a file."""
    if path.suffix == ".gguf":
        return CheckpointError(f"{path} is no GGUF file: it does not begin with GGUF")
    if path.suffix == ".safetensors" or path.name in {CONFIG_FILE, INDEX_FILE}:
        return CheckpointError(f"{path} is one file of a checkpoint; give its folder: {path.parent}")
    return CheckpointError(f"{path} is a file; {SERVED}")


def check_adapter(folder: Path) -> None:
    """Raises `UnsupportedModel` if `folder` holds an adapter, whose weights are nothing without its base model's."""
    if not (file := folder / ADAPTER_FILE).is_file():
        return
    base = read_json(file).get("base_model_name_or_path") or "that it does not name"
    raise UnsupportedModel(
        f"{file}: the folder holds an adapter (LoRA) of the model {quoted(base)}; merge it into that model first, with "
        f"peft's merge_and_unload, or remove the file if that is done"
    )


def _format(names: Collection[str]) -> str | None:
    for pattern, advice in _FORMATS:
        found = sorted(name for name in names if fnmatch(name.rpartition("/")[2], pattern))
        if found:
            return f"{quoted(found[0])}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {advice}"
    return None


def _pointers(folder: Path) -> Iterator[Path]:
    for file in read_by_loading(folder):
        if file.is_file() and file.stat().st_size <= _LARGEST_POINTER:
            with file.open("rb") as stream:
                if stream.read(len(_POINTER)) == _POINTER:
                    yield file


def _entries(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        yield entry
        if (inner := entry / CONFIG_FILE).is_file():
            yield inner
