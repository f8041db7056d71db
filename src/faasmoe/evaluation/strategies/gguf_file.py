"""A Qwen2-MoE checkpoint as llama.cpp reads it. Needs gguf and llama-cpp-python."""

from __future__ import annotations

import ctypes
from pathlib import Path

import gguf
import llama_cpp

from faasmoe.evaluation.strategies.gguf_conversion import write

_MIXTURES = {
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "MXFP4_MOE": llama_cpp.LLAMA_FTYPE_MOSTLY_MXFP4_MOE,
}


def made(folder: Path, kind: str = "BF16") -> Path:
    """The file beside the checkpoint that holds its weights in this type, written if it is not there yet.

    `kind` is a type of one tensor (`BF16`, `Q8_0`), or a mixture of types that llama.cpp makes of a file in bfloat16
    (`Q4_K_M`, `MXFP4_MOE`). Raises `OptionError` for a checkpoint of another kind than Qwen2-MoE.
    """
    path = folder.with_name(f"{folder.name}-{kind.lower()}.gguf")
    if not path.exists():
        unfinished = Path(f"{path}.part")
        if kind in _MIXTURES:
            _mix(made(folder), unfinished, _MIXTURES[kind])
        else:
            write(folder, unfinished, gguf.GGMLQuantizationType[kind])
        unfinished.rename(path)
    return path


def _mix(source: Path, path: Path, mixture: int) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = mixture
    if code := llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(params)):
        raise RuntimeError(f"llama_model_quantize returned {code} for {source}")
