"""Functions keep nothing between calls: what one call brings is in no other call's reply."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.errors import FunctionError
from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.base import Call
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.registry import start
from tests.conformance.conftest import soon
from tests.tiny import save_tiny

WIDTH, EXPERTS = 64, 8
FEW, MANY = 2, 300  # rows: in the frame, in shared memory


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with start("local", PRELOAD, keep_alive=60) as running:
        yield running


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def blocks(request: pytest.FixtureRequest, platform: LocalPlatform, tmp_path_factory: pytest.TempPathFactory) -> list[
    Block
]:  # fmt: skip
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny("mixtral", folder)
    blocks = list(make_plan(resolve(str(folder)), 4, request.param).blocks)
    platform.deploy(write_functions(blocks, folder / "artifacts"))
    return blocks


def rows(count: int, dtype: torch.dtype, fill: float | None = None) -> Tensor:
    made = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(count))
    return (made if fill is None else torch.full_like(made, fill)).to(dtype)


HARMLESS = -7.0  # finite, and so are the sums that come of it


def run(dispatch: Dispatch, hidden: Tensor) -> Tensor:
    """Every expert of the first layer, for every row."""
    index = torch.arange(EXPERTS).repeat(len(hidden), 1)
    return dispatch(0, hidden, index, torch.full(index.shape, 1 / EXPERTS))


@pytest.mark.parametrize("poison", [math.nan, math.inf, 3e38, HARMLESS])
def test_a_poisoned_call_leaves_nothing_in_the_next(
    platform: LocalPlatform, blocks: list[Block], poison: float
) -> None:
    """Of the same orchestrator, or of another one that calls the same instances."""
    dtype = torch.bfloat16 if blocks[0].artifact.dtype == "BF16" else torch.float32
    with LocalPlatform(folder=platform.folder) as other:
        first, second = Dispatch(platform, blocks), Dispatch(other, blocks)
        expected = {count: run(first, rows(count, dtype)) for count in (FEW, MANY)}
        processes = {status.name: status.instances for status in platform.status().functions}
        assert all(torch.isfinite(sums).all() for sums in expected.values())
        for size in (MANY, FEW):
            for who in (first, second):
                for count, sums in expected.items():
                    if poison == HARMLESS:
                        poisoned = run(first, rows(size, dtype, poison))
                        assert not any(torch.equal(poisoned[:FEW], known[:FEW]) for known in expected.values())
                    else:
                        with pytest.raises(FunctionError, match="non-finite"):
                            run(first, rows(size, dtype, poison))
                    assert torch.equal(run(who, rows(count, dtype)), sums)
        seen = {status.name: status.instances for status in platform.status().functions}
        assert seen == processes  # the poisoned instances themselves have answered


def test_a_call_that_fails_leaves_nothing_in_the_next(platform: LocalPlatform, blocks: list[Block]) -> None:
    dtype = torch.bfloat16 if blocks[0].artifact.dtype == "BF16" else torch.float32
    dispatch = Dispatch(platform, blocks)
    expected = {count: run(dispatch, rows(count, dtype)) for count in (FEW, MANY)}
    for count, sums in expected.items():
        with pytest.raises(FunctionError, match="rows of width 8"):
            dispatch(0, torch.full((count, 8), math.nan, dtype=dtype), torch.zeros(count, 1, dtype=torch.int64),
                     torch.ones(count, 1))  # fmt: skip
        noise = bytes(range(256)) * 200
        reply = platform.invoke_many([Call(blocks[0].name, [noise], 1 << 20)], soon())
        assert b"PayloadError" in bytes(reply[0])
        assert noise[:64] not in bytes(reply[0])
        assert torch.equal(run(dispatch, rows(count, dtype)), sums)
