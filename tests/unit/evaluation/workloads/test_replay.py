from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.evaluation.workloads.replay import replay


def test_both_forms_are_read(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(
        '{"time": 0, "tenant": "a", "prompt": "Once", "max_tokens": 2}\n\n'
        '{"time": 1.5, "prompt_tokens": 300, "max_tokens": 12}\n'
    )
    assert list(replay(file)) == [Ask(0, "a", "Once", 2), Ask(1.5, "", 300, 12)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: is no JSON"),
        ("[1]", "must be an object"),
        ('{"time": 0, "prompt": "x", "max_tokens": 1, "model": "y"}', "and no others"),
        ('{"time": 0, "max_tokens": 1}', "either prompt or prompt_tokens"),
        ('{"time": 0, "prompt": "x", "prompt_tokens": 3, "max_tokens": 1}', "either prompt or prompt_tokens"),
        ('{"time": -1, "prompt": "x", "max_tokens": 1}', "time is -1: must be a number of at least 0"),
        ('{"time": "0", "prompt": "x", "max_tokens": 1}', "time is '0'"),
        ('{"time": 0, "prompt": "", "max_tokens": 1}', "prompt must be a string"),
        ('{"time": 0, "prompt": "x", "max_tokens": 1.5}', "max_tokens is 1.5: must be a whole number"),
        ('{"time": 0, "prompt": "x", "max_tokens": true}', "max_tokens is True"),
        ('{"time": 0, "tenant": 4, "prompt": "x", "max_tokens": 1}', "tenant is 4"),
        ('{"time": NaN, "prompt": "x", "max_tokens": 1}', "time is nan"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(OptionError, match=said):
        list(replay(file))


def test_lines_out_of_order_and_missing_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text('{"time": 2, "prompt": "x", "max_tokens": 1}\n{"time": 1, "prompt": "x", "max_tokens": 1}\n')
    with pytest.raises(OptionError, match="line 2: time is 1"):
        list(replay(file))
    with pytest.raises(OptionError, match="cannot be read"):
        list(replay(tmp_path / "gone"))
