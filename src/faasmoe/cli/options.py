"""Options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from faasmoe.cli.numeric import MOST_COUNT, MOST_SECONDS, MOST_SEED, MOST_TOKENS, real, size, whole
from faasmoe.experts.formats import conversions
from faasmoe.platforms.base import DEFAULT_KEEP_ALIVE

if TYPE_CHECKING:
    Conversion = str
else:
    Conversion = Literal[conversions()]  # a checker of types does not know them


Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A folder with a Hugging Face checkpoint, a GGUF file, or a hub id such as Qwen/Qwen1.5-MoE-A2.7B, "
        "with @REVISION if it is another than the main branch. "
        "Without it the small demo model that comes with FaaSMoE.",
        show_default=False,
    ),
]
BlockSize = Annotated[
    int | None,
    whole(
        1,
        MOST_COUNT,
        help="Experts in one function. Small blocks free memory sooner, large ones need fewer calls. "
        "Default: 10, or all experts of a layer if there are fewer.",
        show_default=False,
    ),
]
KeepAlive = Annotated[
    float | None,
    real(
        0.1,
        math.inf,
        help=f"Seconds without a call after which an instance is stopped; inf: never. Default: {DEFAULT_KEEP_ALIVE:g}, "
        "on platforms that stop idle instances.",
        show_default=False,
    ),
]
MeasuredKeepAlive = Annotated[
    float | None,
    real(
        0.1,
        MOST_SECONDS,
        help=f"Seconds without a call after which an instance is stopped. Default: {DEFAULT_KEEP_ALIVE:g}.",
        show_default=False,
    ),
]
MaxModelLen = Annotated[
    int | None,
    whole(
        2,
        MOST_TOKENS,
        help="Most tokens of prompt and completion together. Default: the model's context, or what the KV cache "
        "memory holds, if that is less.",
        show_default=False,
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Type to compute in; auto keeps bfloat16 and takes float32 for all else."),
]
Quantize = Annotated[
    Conversion | None,
    typer.Option(
        help="Use the experts' weights and those of the large dense layers in eight bits (int8) or four (int4): a half "
        "or a quarter of the memory. A copy of them is made at the first start and kept. Default: weights as they are.",
        show_default=False,
    ),
]
RopeScalingOption = Annotated[
    str | None,
    typer.Option(
        "--rope-scaling",
        metavar="JSON",
        help="Scale rotary embeddings instead of as the config says, for longer contexts, where a model's card has "
        'such an object: {"rope_type":"yarn","factor":4,"original_max_position_embeddings":32768}; or linear.',
        show_default=False,
    ),
]
MemoryBudget = Annotated[
    int | None,
    size(
        ours=True,
        help="Most memory for the processes that run functions, such as 4GiB. When it is full, idle instances make "
        "room for others, and calls wait if none is idle. Default: no limit, or a part of what this process's control "
        "group leaves, if that limits memory.",
        show_default=False,
    ),
]
ReleasePageCache = Annotated[
    bool,
    typer.Option(
        "--release-page-cache",
        help="Drop a stopped function's weights from the kernel's page cache, so that the memory is really free. "
        "Starting it again then reads them from disk.",
    ),
]
Seed = Annotated[int, whole(-MOST_SEED, MOST_SEED, help="The same seed gives the same requests and order.")]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="FAASMOE_DATABASE",
        help="Where tenants, keys and the ledger are: sqlite:////folder/file.db or postgresql://user@host/name. "
        "Default: an SQLite file in this user's data folder.",
        show_default=False,
    ),
]
Prices = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="FAASMOE_PRICES",
        help="The price table, in TOML; aws-lambda: the one that comes with FaaSMoE. Without it there are quantities "
        "and no costs.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
