"""What people give as MODEL that is none: each is told what it is, before anything is imported or loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointError, UnsupportedModel, UserError
from faasmoe.model.checkpoint.folder import check_folder
from faasmoe.model.checkpoint.source import ModelSource, resolve
from faasmoe.model.plan import make_plan
from tests.tiny import save_tiny

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 5000000000\n".format("0" * 64)
Make = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    save_tiny("olmoe", folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def files(**content: object) -> Make:
    """A folder with these files and nothing else; `__` stands for a slash."""

    def make(folder: Path) -> None:
        shutil.rmtree(folder)
        for name, text in content.items():
            file = folder / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text if isinstance(text, str) else json.dumps(text))

    return make


def only(names: list[str]) -> Make:
    return files(**dict.fromkeys(names, "{}"))


def renamed(old: str, new: str) -> Make:
    return lambda folder: (folder / old).rename(folder / new)


def pointer(name: str) -> Make:
    return lambda folder: (folder / name).write_text(POINTER)


def without(*names: str) -> Make:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


FOLDERS: list[tuple[Make, type[UserError], str]] = [
    (
        only(["a.Q4.gguf", "b.Q8.gguf"]),
        UnsupportedModel,
        r"but a\.Q4\.gguf and 1 more: a GGUF file is served if its path is given, not its folder$",
    ),
    (only(["model_index.json"]), UnsupportedModel, "a pipeline of diffusers"),
    (only(["model_index.json", "unet__config.json"]), UnsupportedModel, "a pipeline of diffusers"),
    (only(["modules.json", "0_Transformer__config.json"]), UnsupportedModel, "a model of sentence-transformers"),
    (only(["params.json", "consolidated.safetensors"]), UnsupportedModel, "Mistral's or Meta's own layout"),
    (only(["tokenizer.json", "tokenizer_config.json"]), UnsupportedModel, "a tokenizer and no model"),
    (only(["one__config.json"]), CheckpointError, r"1 of its folders do; give one of them: \S+/model/one$"),
    (only(["snapshots__a__x.json", "README.md"]), CheckpointError, "so it is no Hugging Face checkpoint"),
    (only(["config.json", "model.Q4.gguf"]), UnsupportedModel, r"but model\.Q4\.gguf: a GGUF file is served if"),
    (
        renamed("model.safetensors", "pytorch_model.bin"),
        UnsupportedModel,
        r"pytorch_model\.bin: weights as PyTorch's",
    ),
    (renamed("model.safetensors", "consolidated.00.pth"), UnsupportedModel, "Mistral's or Meta's own layout"),
    (renamed("model.safetensors", "tf_model.h5"), UnsupportedModel, "TensorFlow"),
    (
        renamed("model.safetensors", "weights.safetensors"),
        CheckpointError,
        r"a file is named weights\.safetensors",
    ),
    (
        pointer("model.safetensors"),
        CheckpointError,
        r"model\.safetensors is a pointer of git-lfs .* run git lfs pull",
    ),
    (pointer("tokenizer.json"), CheckpointError, r"tokenizer\.json is a pointer of git-lfs"),
    (pointer("config.json"), CheckpointError, r"config\.json is a pointer of git-lfs"),
    (without("tokenizer.json"), CheckpointError, r"no usable tokenizer: none of tokenizer\.json"),
    (
        files(**{"adapter_config.json": {"base_model_name_or_path": "org/base"}, "adapter_model.safetensors": ""}),
        UnsupportedModel,
        r"adapter_config\.json: the folder holds an adapter \(LoRA\) of the model org/base; merge it",
    ),
    (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        UnsupportedModel,
        r"an adapter \(LoRA\) of the model that it does not name",
    ),
]


@pytest.mark.parametrize(("make", "kind", "said"), FOLDERS)
def test_a_folder_that_is_something_else(folder: Path, make: Make, kind: type[UserError], said: str) -> None:
    make(folder)
    for look in (
        check_folder,
        lambda given: resolve(str(given)),
        lambda given: make_plan(ModelSource("m", given)),
    ):
        with pytest.raises(kind, match=said) as caught:
            look(folder)
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.gguf", r"a\.gguf is no GGUF file: it does not begin with GGUF$"),
        ("a.safetensors", r"a\.safetensors is one file of a checkpoint; give its folder: \S+$"),
        ("config.json", r"config\.json is one file of a checkpoint; give its folder: \S+$"),
        (
            "a.bin",
            r"a\.bin is a file; a folder with config\.json, a tokenizer, and weights as safetensors is served",
        ),
    ],
)
def test_a_file_is_told_what_it_is(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=said):
        resolve(str(tmp_path / name))


def test_an_address_is_told_its_hub_id() -> None:
    with pytest.raises(CheckpointError, match=r"give the hub id: Qwen/Qwen3-30B-A3B$"):
        resolve("https://huggingface.co/Qwen/Qwen3-30B-A3B/tree/main")


def test_only_a_config_is_wanted_for_planning(folder: Path) -> None:
    without("model.safetensors", "tokenizer.json")(folder)
    assert resolve(str(folder), config_only=True).folder == folder
