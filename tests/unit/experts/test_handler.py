from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.expert import ExpertForm, Gate
from faasmoe.experts.formats.int8 import Int8Location, Int8Matrix
from faasmoe.experts.handler import Handle, load, warm_up
from faasmoe.experts.mapping import TensorLocation
from faasmoe.experts.payload import Reply, Request, decode_reply, encode_request
from faasmoe.model.tensors import as_array

H, INNER, E = 8, 6, 3


@pytest.fixture
def weights() -> torch.Tensor:
    return torch.randn(E, 3 * INNER * H, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def handle(weights: torch.Tensor, tmp_path: Path) -> Handle:
    (tmp_path / "weights").write_bytes(weights.numpy().tobytes())

    def at(offset: int, *shape: int) -> TensorLocation:
        return TensorLocation(tmp_path / "weights", 4 * offset, "F32", shape)

    size = INNER * H
    experts = tuple(
        ExpertLocations(
            (at(e * 3 * size, INNER, H), at((3 * e + 1) * size, INNER, H)), at((3 * e + 2) * size, H, INNER)
        )
        for e in range(E)
    )
    artifact = Artifact(2, tuple(range(E)), "F32", ExpertForm(Gate("glu", "silu")), experts)
    (tmp_path / "artifact.json").write_text(artifact.to_text())
    return load(str(tmp_path / "artifact.json"))


def ask(handle: Handle, request: Request) -> Reply:
    data = bytearray(b"".join(encode_request(request)))
    shared = None if request.picked is None else memoryview(request.rows.tobytes())
    return decode_reply(bytearray(handle(data, shared, 7, bytearray)))


def sums(reply: Reply) -> torch.Tensor:
    assert reply.sums is not None
    return torch.from_numpy(reply.sums)


def request(layer: int = 2, width: int = H, experts: tuple[int, ...] = (0, 2, 2)) -> Request:
    slots = len(experts)
    return Request(
        layer=layer,
        rows=torch.randn(2, width, generator=torch.Generator().manual_seed(1)).numpy(),
        row=np.array([0, 0, 1][:slots], np.int32),
        expert=np.array(experts, np.int32),
        weight=np.array([0.5, 0.25, 2.0][:slots], np.float32),
    )


def test_sums_are_weighted_over_the_blocks_experts(handle: Handle, weights: torch.Tensor) -> None:
    asked = request()
    wanted = torch.zeros(2, H)
    for row, expert, weight in zip(asked.row, asked.expert, asked.weight, strict=True):
        gate, up, down = weights[expert].view(3, -1)
        x = torch.from_numpy(asked.rows[row])
        hidden = torch.nn.functional.silu(gate.view(INNER, H) @ x) * (up.view(INNER, H) @ x)
        wanted[row] += float(weight) * (down.view(H, INNER) @ hidden)
    assert torch.allclose(sums(ask(handle, asked)), wanted, atol=1e-5)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rows", [1, 40])
def test_matrices_in_eight_bits(tmp_path: Path, interleaved: bool, rows: int) -> None:
    torch.manual_seed(0)
    hidden, inner, at, places = 32, 16, 0, []
    matrices = [
        Int8Matrix.nearest(as_array(torch.randn(shape))) for shape in ((2 * inner, hidden), (hidden, inner))
    ]
    with (tmp_path / "copy").open("wb") as file:
        for matrix in matrices:
            values = TensorLocation(tmp_path / "copy", at, "I8", tuple(matrix.shape))
            scale = TensorLocation(tmp_path / "copy", at + values.nbytes, "F32", (len(matrix.values),))
            file.write(matrix.values.tobytes() + matrix.scale.tobytes())
            places.append(Int8Location(values, scale))
            at += matrix.nbytes
    form = ExpertForm(Gate("glu", "silu"), interleaved=interleaved)
    artifact = Artifact(2, (7,), "BF16", form, (ExpertLocations((places[0],), places[1]),))
    (tmp_path / "artifact.json").write_text(artifact.to_text())
    x, index = torch.randn(rows, hidden).bfloat16(), np.arange(rows, dtype=np.int32)
    asked = Request(
        layer=2, rows=as_array(x), row=index, expert=np.zeros_like(index), weight=np.full(rows, 0.5, np.float32)
    )
    first, down = (torch.from_numpy(matrix.exact()).double() for matrix in matrices)
    both = x.double() @ first.T
    gate, up = (both[:, ::2], both[:, 1::2]) if interleaved else both.chunk(2, 1)
    wanted = 0.5 * (torch.nn.functional.silu(gate) * up) @ down.T
    got = sums(ask(load(str(tmp_path / "artifact.json")), asked)).double()
    assert (got - wanted).abs().max() < 0.01 * wanted.abs().max()


def test_rows_may_be_picked_from_a_shared_buffer(handle: Handle) -> None:
    asked = request()
    everything = np.ones((7, H), np.float32)
    everything[[5, 2]] = asked.rows
    shared = replace(asked, rows=everything, picked=np.array([5, 2], np.int32))
    assert torch.equal(sums(ask(handle, shared)), sums(ask(handle, asked)))


def test_the_reply_is_written_where_there_is_room_for_it(handle: Handle) -> None:
    asked = request()
    room = bytearray(4096)
    data = bytearray(b"".join(encode_request(asked)))
    reply = handle(data, None, 0, lambda nbytes: memoryview(room)[:nbytes])
    assert torch.equal(sums(decode_reply(room[: len(reply)])), sums(ask(handle, asked)))


def test_only_the_first_reply_is_cold(handle: Handle) -> None:
    first, second = ask(handle, request()), ask(handle, request())
    assert first.cold
    assert first.timings.load > 0
    assert not second.cold
    assert (second.timings.load, second.timings.queue) == (0, 7)
    assert torch.equal(sums(first), sums(second))


def test_nothing_of_a_poisoned_call_is_left(handle: Handle) -> None:
    before = sums(ask(handle, request()))
    poison = request()
    poison.rows.fill(float("nan"))
    error = ask(handle, poison).error
    assert error is not None
    assert error.startswith("PayloadError: non-finite rows")
    assert torch.equal(sums(ask(handle, request())), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_weights_that_are_not_finite_are_never_answered_with_sums(tmp_path: Path, dtype: str, bad: float) -> None:
    def tensor(number: int) -> TensorLocation:
        return TensorLocation(tmp_path / "weights", number * 16 * 16 * 4, dtype, (16, 16))

    weights = torch.randn(6, 16 * 16 * 4 // (4 if dtype == "F32" else 2))
    weights[4, 7] = bad  # of the second expert's second matrix
    kind = torch.float32 if dtype == "F32" else torch.bfloat16
    (tmp_path / "weights").write_bytes(as_array(weights.to(kind)).tobytes())
    experts = tuple(ExpertLocations((tensor(n), tensor(n + 1)), tensor(n + 2)) for n in (0, 3))
    artifact = Artifact(5, (20, 21), dtype, ExpertForm(Gate("glu", "silu")), experts)
    (tmp_path / "artifact.json").write_text(artifact.to_text())
    handle = load(str(tmp_path / "artifact.json"))

    def asked(expert: int) -> Reply:
        index, rows = np.zeros(1, np.int32), as_array(torch.ones(1, 16, dtype=kind))
        return ask(
            handle,
            Request(layer=5, rows=rows, row=index, expert=index + np.int32(expert), weight=np.ones(1, np.float32)),
        )

    assert sums(asked(0)).isfinite().all()
    error = asked(1).error
    assert error is not None
    assert error.startswith("CheckpointError: non-finite sums (NaN or infinity) from layer 5, experts 21")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (request(layer=1), "layer 1"),
        (request(width=5), "width 5"),
        (request(experts=(0, 3)), r"outside 0\.\.2"),
        (request(experts=(-1,)), r"outside 0\.\.2"),
    ],
)
def test_what_is_not_for_this_function_is_an_error_reply(handle: Handle, asked: Request, said: str) -> None:
    reply = ask(handle, asked)
    assert reply.sums is None
    assert reply.error is not None
    assert reply.error.startswith("PayloadError")
    assert said.replace("\\", "") in reply.error


def test_noise_is_an_error_reply(handle: Handle) -> None:
    reply = decode_reply(bytearray(handle(bytearray(b"noise"), None, 0, bytearray)))
    assert reply.error is not None
    assert "PayloadError" in reply.error


def test_a_warm_up_loads_each_time() -> None:
    before = len(os.listdir("/proc/self/fd"))
    warm_up()
    after = len(os.listdir("/proc/self/fd"))
    warm_up()
    assert len(os.listdir("/proc/self/fd")) == after <= before + 2
