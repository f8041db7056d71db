from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.options import OwnOption, own_options, read_own


@dataclass(frozen=True)
class Options:
    keep_alive: float = field(default=60.0, metadata={"help": "It has an option of the command line."})
    nodes: int = field(default=2, metadata={"help": "Machines that run functions."})
    zone: str | None = field(default=None, metadata={"help": "Where they are."})
    files: Path = field(default_factory=lambda: Path("here"), metadata={"help": "Folder of its files."})
    spot: bool = field(default=False, metadata={"help": "Whether they may be taken away."})
    share: float = field(default=0.5, metadata={"help": "Part of their memory."})
    preload: tuple[str, ...] = ()  # no option of users


def read(*given: str) -> dict[str, object]:
    return read_own("made", Options, given)


def test_options_of_a_platforms_own_are_the_fields_with_a_help_text() -> None:
    own = own_options(Options)
    assert [each.name for each in own] == ["nodes", "zone", "files", "spot", "share"]
    assert own[0] == OwnOption("nodes", int, 2, "Machines that run functions.")
    assert own[2].default == Path("here")


def test_texts_become_values_of_the_fields_types() -> None:
    assert read() == {}
    assert read("nodes=3", "zone=eu=west", "files=/there", "spot=true", "share=inf") == {
        "nodes": 3, "zone": "eu=west", "files": Path("/there"), "spot": True, "share": float("inf")
    }  # fmt: skip
    assert read("zone=") == {"zone": ""}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nodes"], "--platform-option nodes: must be NAME=VALUE"),
        (["nodes=many"], "--platform-option nodes=many: must be of type int"),
        (["spot=perhaps"], "--platform-option spot=perhaps: must be of type bool"),
        (["zones=3"], "zones=3: the options of platform made are: nodes, zone, files, spot, share"),
        (["preload=os"], "preload=os: the options of platform made are: nodes"),
        (["keep_alive=3"], "keep_alive=3: must be given as --keep-alive"),
        (["nodes=1", "nodes=2"], "nodes=2: nodes is given twice"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_right(given: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        read(*given)
