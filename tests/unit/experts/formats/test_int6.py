"""What int6 has of its own; products in it are tested beside those in int4."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from faasmoe.experts.formats import int4
from faasmoe.experts.formats.int6 import FORMAT, Int6Matrix
from faasmoe.experts.formats.registry import by_name, format_of
from faasmoe.experts.mapping import TensorLocation


def matrix() -> Int6Matrix:
    return Int6Matrix.nearest(np.random.default_rng(0).standard_normal((6, 96), np.float32))


def test_it_has_six_and_a_half_bits_a_weight() -> None:
    its = matrix()
    assert (its.shape, its.nbytes) == ((6, 96), 6 * 96 // 16 * 13 + 6 * 4)
    assert FORMAT.converted("a", (6, 96)) == {"a": ("U8", (6, 78)), "a.scale": ("F32", (6,))}
    assert [array.shape for array in FORMAT.arrays(its)] == [(6, 78), (6,)]


def test_it_is_the_format_of_what_gives_logits_in_int4() -> None:
    assert by_name(int4.FORMAT.head) is FORMAT
    assert FORMAT.head == ""


def test_a_part_and_what_was_loaded_are_in_the_format(tmp_path: Path) -> None:
    its = matrix()
    (tmp_path / "weights").write_bytes(b"".join(array.tobytes() for array in FORMAT.arrays(its)))
    place = FORMAT.location(
        [
            TensorLocation(tmp_path / "weights", 0, "U8", (6, 78)),
            TensorLocation(tmp_path / "weights", 468, "F32", (6,)),
        ]
    )
    assert (place.format, place.shape, place.memory(2)) == ("int6", (6, 96), its.nbytes)
    for each in (place.map(), its[:]):
        assert format_of(each) is FORMAT
        assert np.array_equal(FORMAT.widened(each, slice(2, 5)), its.exact()[2:5])
