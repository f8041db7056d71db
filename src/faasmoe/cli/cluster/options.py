"""Options that commands for clusters share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ClusterFolderOption = Annotated[
    Path | None,
    typer.Option(
        "--cluster-folder",
        metavar="FOLDER",
        help="Folder of the cluster's keys and certificates on this machine. Default: cluster in the user's data "
        "folder.",
        show_default=False,
    ),
]
