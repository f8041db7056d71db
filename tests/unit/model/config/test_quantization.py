from __future__ import annotations

import pytest
from transformers import AutoConfig

from faasmoe.errors import UnsupportedModel
from faasmoe.experts.formats import REGISTERED, Registered
from faasmoe.model.config.quantization import quantization_of, without_quantization
from tests.tiny import tiny_config
from tests.unit.experts.formats import made_up

HALVES = {"quant_method": made_up.FORMAT.name}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTERED, made_up.FORMAT.name, Registered(made_up.__name__))


def test_a_plain_config_declares_nothing() -> None:
    assert quantization_of("mixtral", tiny_config("mixtral")) == {}


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_registered_format_is_declared_by_the_whole_or_by_a_part(key: str) -> None:
    assert quantization_of("mixtral", tiny_config("mixtral", **{key: HALVES})) == HALVES
    whole = AutoConfig.for_model("llama4", text_config={key: HALVES})
    assert quantization_of("llama4", whole) == HALVES
    assert quantization_of("llama4", without_quantization(whole)) == {}
    assert quantization_of("llama4", whole) == HALVES


def test_what_no_format_reads_is_refused_beside_one_that_is_read() -> None:
    config = tiny_config("mixtral", quantization_config=HALVES, compression_config={"quant_method": "awq"})
    with pytest.raises(
        UnsupportedModel, match="mixtral: the checkpoint is quantized with awq, which no weight format reads"
    ):
        quantization_of("mixtral", config)


def test_parts_cannot_declare_different_settings() -> None:
    config = tiny_config("mixtral", quantization_config=HALVES, compression_config=HALVES | {"bits": 4})
    with pytest.raises(UnsupportedModel, match="declares several formats of quantized weights"):
        quantization_of("mixtral", config)
