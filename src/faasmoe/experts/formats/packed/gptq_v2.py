"""Weights as GPTQModel publishes them in its second version, with zeros as they are."""

from __future__ import annotations

from faasmoe.experts.formats.packed.gptq import GptqFormat


class GptqV2Format(GptqFormat):
    """See `GptqFormat`."""

    name = "gptq_v2"
    version = 2


FORMAT = GptqV2Format()
