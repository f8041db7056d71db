"""Weight formats: a format is one module of this folder, which defines `FORMAT`, and one line of `REGISTERED`.

`base` is the protocol of a format, `registry` looks formats up. The table is here and imports no torch, because the
command line checks its options before torch is imported.
"""

from typing import NamedTuple


class Registered(NamedTuple):
    """The line of one format."""

    module: str  # defines `FORMAT`
    conversion: bool = False  # `--quantize` can convert a checkpoint to it


REGISTERED = {
    "dense": Registered("faasmoe.experts.formats.dense"),
    "int8": Registered("faasmoe.experts.formats.int8", conversion=True),
    "int4": Registered("faasmoe.experts.formats.int4", conversion=True),
    "int6": Registered("faasmoe.experts.formats.int6"),
    "q8_0": Registered("faasmoe.experts.formats.gguf.q8_0"),
    "q4_k": Registered("faasmoe.experts.formats.gguf.q4_k"),
    "q6_k": Registered("faasmoe.experts.formats.gguf.q6_k"),
    "gguf_mxfp4": Registered("faasmoe.experts.formats.gguf.mxfp4"),
    "grouped_int4": Registered("faasmoe.experts.formats.grouped_int4"),
    "mxfp4": Registered("faasmoe.experts.formats.mxfp4"),
    "nvfp4": Registered("faasmoe.experts.formats.nvfp4"),
    "nvfp4_pack": Registered("faasmoe.experts.formats.nvfp4_pack"),
    "fp8": Registered("faasmoe.experts.formats.fp8"),
    "awq": Registered("faasmoe.experts.formats.packed.awq"),
    "gptq": Registered("faasmoe.experts.formats.packed.gptq"),
    "gptq_v2": Registered("faasmoe.experts.formats.packed.gptq_v2"),
    "pack_quantized": Registered("faasmoe.experts.formats.packed.pack_quantized"),
}


def conversions() -> tuple[str, ...]:
    """Names of the formats to which `--quantize` can convert a checkpoint."""
    return tuple(name for name, line in REGISTERED.items() if line.conversion)
