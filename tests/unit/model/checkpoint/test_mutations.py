"""A sound checkpoint whose JSON files are changed is served, or refused in one line; `inspect` knows which."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faasmoe.cli.inspect import inspect
from faasmoe.errors import UserError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import make_plan
from tests.tiny import save_tiny

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer_config.json",
    "tokenizer.json",
)
NEW_KEYS = ("text_config", "quantization_config", "rope_scaling", "sliding_window", "auto_map", "transformers_weights",
            "eos_token_id", "layer_types", "chat_template", "added_tokens_decoder", "tokenizer_class")  # fmt: skip
# What is found by running a token with the weights; `inspect` loads none.
LATER = ("one token cannot be run", "NaN comes of one token", "layers have plain attention", "are called")

odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, 7, 8, 9, 64, 2**31, 10**6])
    | st.floats()
    | st.sampled_from(["", "silu", "qwen2_moe", "mixtral", "llama4", "auto", "full_attention", "Qwen2Tokenizer"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
contents = st.sampled_from(
    ["", "{}", "[]", "[1]", "null", "7", '"text"', "{", "\0", "\ufeff{}", "NaN", '{"a": 1e999}']
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    save_tiny("qwen2_moe", folder).save_pretrained(folder, max_shard_size="300KB")
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2], "temperature": 0.5}))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def refused_by_inspect(folder: Path, capsys: pytest.CaptureFixture[str]) -> str | None:
    """The reason, as a program reads it."""
    capsys.readouterr()
    with suppress(typer.Exit):
        inspect(str(folder), None, "auto", None, True)
    answer = json.loads(capsys.readouterr().out)
    return None if answer["servable"] else str(answer["reason"])


def refused_by_serving(folder: Path) -> str | None:
    """The reason, as far as a server goes before it starts anything."""
    try:
        plan = make_plan(resolve(str(folder)))
        DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)
    except UserError as error:
        return str(error)
    return None


def refusals(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str | None, str | None]:
    """What `inspect` and serving say."""
    return refused_by_inspect(folder, capsys), refused_by_serving(folder)


def assert_both_agree(told: str | None, served: str | None, folder: Path) -> None:
    """Both say the same, a single line that names something of the folder."""
    if told is None:
        assert served is None or any(cause in served for cause in LATER), served
        return
    assert told == served
    assert "\n" not in told
    assert str(folder) in told or "qwen2_moe" in told or "mixtral" in told or "llama4" in told


def mutated(value: Any, data: st.DataObject) -> Any:
    """`value`, an object of JSON, with one or two of its keys changed, added or gone, perhaps deep within."""
    value = dict(value)
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from([*sorted(value), *NEW_KEYS]))
        if isinstance(value.get(key), dict) and value[key] and data.draw(st.booleans()):
            value[key] = mutated(value[key], data)
        elif key in value and data.draw(st.booleans()):
            del value[key]
        else:
            value[key] = data.draw(odd_values)
    return value


def is_object(text: str) -> bool:
    """Whether it is JSON that may mean something: settings that nobody knows of, for one."""
    with suppress(ValueError):
        return isinstance(json.loads(text), dict)
    return False


@given(st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_value_is_served_or_refused(
    folder: Path, sound: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(FILES))
    (folder / name).write_text(json.dumps(mutated(json.loads((sound / name).read_text()), data)))
    try:
        told, served = refusals(folder, capsys)
        assert_both_agree(told, served, folder)
    finally:
        shutil.copyfile(sound / name, folder / name)


@given(st.sampled_from(FILES), contents | st.integers(1, 400))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_something_else_or_cut_short_is_refused(
    folder: Path, sound: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | int
) -> None:
    whole = (sound / name).read_text()
    (folder / name).write_text(content if isinstance(content, str) else whole[:content])
    try:
        told, served = refusals(folder, capsys)
        assert_both_agree(told, served, folder)
        assert served or is_object((folder / name).read_text()), (name, content)
    finally:
        shutil.copyfile(sound / name, folder / name)


def test_the_sound_one_is_served(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusals(folder, capsys) == (None, None)
