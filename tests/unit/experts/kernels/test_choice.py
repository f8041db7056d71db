from __future__ import annotations

import pytest

from faasmoe.errors import OptionError
from faasmoe.experts.kernels.choice import MANY_ROWS, VARIABLE, Choice
from faasmoe.experts.kernels.cpu import Cpu


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("avx2", Choice("avx2")),
        ("/a/kernels.so", Choice("/a/kernels.so")),
        ("avx512bf16,onednn=64", Choice("avx512bf16", 64)),
        ("/a,b/kernels.so,onednn=512", Choice("/a,b/kernels.so", 512)),
    ],
)
def test_a_choice_is_read_as_it_is_written(text: str, choice: Choice) -> None:
    assert Choice.parse(text) == choice
    assert str(choice) == text


@pytest.mark.parametrize(
    "text", [",onednn=64", *(f"avx2,onednn={rows}" for rows in ("", "0", "-1", "1x", "64,onednn=64", "9" * 99))]
)
def test_what_is_none_is_refused_with_the_variable_and_an_example(text: str) -> None:
    with pytest.raises(OptionError, match=rf"^{VARIABLE}={text}: behind an .*,onednn=ROWS, such as 64$"):
        Choice.parse(text)


@pytest.mark.parametrize(("flags", "rows"), [({"avx2"}, None), ({"amx_tile", "amx_bf16"}, MANY_ROWS)])
def test_without_one_the_cpus_flags_decide(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], rows: int | None
) -> None:
    monkeypatch.setattr(Cpu, "here", lambda: Cpu("x86_64", "", frozenset(flags)))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Choice.here() == Choice("", rows)
    monkeypatch.setenv(VARIABLE, "")
    assert Choice.here() == Choice("", rows)


def test_one_that_is_named_is_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cpu, "here", lambda: Cpu("x86_64", "", frozenset({"amx_bf16"})))
    monkeypatch.setenv(VARIABLE, "avx2")
    assert Choice.here() == Choice("avx2", None)
