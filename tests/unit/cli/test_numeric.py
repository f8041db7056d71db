from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.cli.main import app, refusal
from faasmoe.cli.numeric import Number, Size
from faasmoe.util import machine

EXTREMES = [
    "0", "-1", "1", "300", "-0", "0.0", "1e-320", "1e308", "-1e308", "1e309", "1e30", "2147483648",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "9" * 400, "9" * 5000, "inf", "-inf", "Infinity", "nan", "-nan", "",
    " ", "\n", "1\n2", "many", "1.5", "1,5", "0x10", "1_0", "None", "true", "\uff14", "\x00", "\ud800", "[bold]", "--",
    "1" * 100 + "\n", "4 GiB", "0GiB", "0.1B", "1e3GiB", "-4GiB", "nanGiB", "infGiB", "GiB", "4bit", "4XiB", "4",
    "9" * 30 + "TiB", "9" * 5000 + "GiB", "1EiB", "1B", "500MB", "4.5GiB", ".5GiB", "4.GiB",
]  # fmt: skip
FOR_EVER = {
    ("serve", "keep_alive"),
    ("serve", "orchestrator_keep_alive"),
    ("generate", "keep_alive"),
    ("node", "keep_alive"),
}


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands, with their names."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def is_number(param: Any) -> bool:
    annotation = param.type_descriptor.annotation
    return any(kind in (annotation, *getattr(annotation, "__args__", ())) for kind in (int, float))


COMMANDS = {" ".join(path): command for path, command in commands()}
OPTIONS = [(name, param) for name, command in COMMANDS.items() for param in command.params if is_number(param)]


def parsed(context: Any, param: Any, value: str) -> tuple[Any, str]:
    """What a command gets for an option, or what its user is told. Nothing runs."""
    try:
        param.handle_parse_result(context, {param.name: [value] if param.multiple else value}, [])
    except typer.BadParameter as error:
        return None, refusal(error)
    return context.params[param.name], ""


def test_options_that_are_numbers_are_made_to_refuse_what_is_none() -> None:
    assert len(OPTIONS) > 70
    plain = [
        f"faasmoe {name} {param.opts[0]}"
        for name, param in OPTIONS
        if not isinstance(param.type_descriptor.parameter_info.parser, Number | Size)
    ]
    assert not plain, "these are not made by faasmoe.cli.numeric"


@pytest.mark.parametrize(("name", "param"), OPTIONS, ids=[f"{name} {param.opts[0]}" for name, param in OPTIONS])
def test_every_number_at_every_extreme_is_taken_or_refused_in_one_line(name: str, param: Any) -> None:
    with COMMANDS[name].make_context(name, [], resilient_parsing=True) as context:
        context.resilient_parsing = False
        outcomes = {value: parsed(context, param, value) for value in EXTREMES}
    assert any(not said for _, said in outcomes.values())
    for value, (got, said) in outcomes.items():
        if said:
            assert said.startswith(f"{param.opts[0]} "), said
            assert said.isprintable(), said
            assert len(said) < 200, said
        else:
            for number in got if isinstance(got, list) else [got]:
                never = (name, param.name) in FOR_EVER and number > 0
                assert never or abs(number) <= sys.maxsize, f"{value!r} became {number}"


@given(st.text(max_size=50) | st.floats().map(repr) | st.integers().map(str))
def test_any_text_is_a_number_within_bounds_or_refused(text: str) -> None:
    for parser in (
        Number(int, 1, 64),
        Number(float, 0, 2, above=True),
        Number(float, 0.1, math.inf),
        Size(ours=True),
    ):
        try:
            number = parser(text)
        except typer.BadParameter as error:
            number, said = 1, error.message
        else:
            said = ""
        assert 0 < number <= (parser.most if isinstance(parser, Number) else sys.maxsize)
        assert not said or said.isprintable()


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("4GiB", 4 << 30), ("4 gib", 4 << 30), ("4Gi", 4 << 30), ("500MB", 500_000_000), ("1.5kB", 1500),
        ("4G", 4_000_000_000), ("7b", 7), ("1TiB", 1 << 40),
    ],
)  # fmt: skip
def test_sizes(text: str, nbytes: int) -> None:
    assert Size(ours=False)(text) == nbytes


@pytest.mark.parametrize("text", ["4", "4.5", "", "GiB", "4XB", "4bit", "4 4GiB", "four GiB"])
def test_a_size_without_a_unit_is_none(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="must be a size with its unit, such as 4GiB or 500MB"):
        Size(ours=False)(text)


def test_bounds_that_only_keep_slips_out_are_told_only_to_those_who_make_them() -> None:
    count = Number(int, 1, 1_000_000)
    with pytest.raises(typer.BadParameter, match=r"0: must be a whole number, at least 1$"):
        count("0")
    with pytest.raises(typer.BadParameter, match=r"must be a whole number, at most 1000000$"):
        count("1000001")
    with pytest.raises(typer.BadParameter, match=r"many: must be a whole number, 1 to 64$"):
        Number(int, 1, 64)("many")


def test_more_memory_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 8 << 30)
    monkeypatch.setattr(machine, "memory_is_limited", lambda: True)
    message = r"16GiB: 17.18 GB, and the control group that this runs in has 8.59 GB in all"
    with pytest.raises(typer.BadParameter, match=message):
        Size(ours=True)("16GiB")
    assert Size(ours=False)("16GiB") == 16 << 30
