"""The folder of this user for what can be made again, such as copies of models in eight bits."""

from __future__ import annotations

import os
from pathlib import Path

from faasmoe.errors import OptionError, brief

CACHE = "FAASMOE_CACHE"  # environment variable that names it


def user_cache() -> Path:
    """The folder, which need not exist. Raises `OptionError` if nothing says where it is."""
    given = os.environ.get(CACHE)
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "faasmoe"
    try:
        return base.expanduser().absolute()
    except RuntimeError as error:  # this user has no home
        raise OptionError(f"{base}: {brief(error)}; the environment variable {CACHE} names a folder") from error
