"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A folder with a Hugging Face checkpoint, or a hub id such as Qwen/Qwen1.5-MoE-A2.7B. "
        "Without it the small demo model that comes with FaaSMoE.",
        show_default=False,
    ),
]
BlockSize = Annotated[
    int | None,
    typer.Option(
        help="Experts in one function. Small blocks free memory sooner, large ones need fewer calls. "
        "Default: 10, or all experts of a layer if there are fewer.",
        show_default=False,
    ),
]
KeepAlive = Annotated[
    float, typer.Option(help="Seconds without a call after which an instance is stopped.", min=0.1)
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(
        help="Most tokens of prompt and completion together. Default: the model's context.",
        show_default=False,
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Type to compute in; auto keeps bfloat16 and takes float32 for all else."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
