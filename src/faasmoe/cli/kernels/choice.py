"""The instruction set that was measured to be the fastest on this machine, kept in the user's cache."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from faasmoe import __version__
from faasmoe.errors import OptionError, brief
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import VARIABLE, known
from faasmoe.util.folders.user_cache import CACHE, user_cache

log = logging.getLogger(__name__)


def remember(chosen: str) -> Path:
    """Keep the choice for this CPU and version; returns the file. Raises `OptionError` if it cannot be written."""
    file = user_cache() / "kernels.json"
    new = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps({"cpu": Cpu.here().model, "version": __version__, "chosen": chosen}))
        new.replace(file)
    except OSError as error:
        raise OptionError(f"{file}: {brief(error)}; the environment variable {CACHE} names a folder") from error
    return file


def remembered() -> str | None:
    """The choice that was kept for this CPU and version; None without one, or if its kernels are no longer there."""
    cpu = Cpu.here()
    try:
        facts = json.loads((user_cache() / "kernels.json").read_text())
        same = (facts["cpu"], facts["version"]) == (cpu.model, __version__)
        chosen = str(facts["chosen"])
    except (FileNotFoundError, OptionError):  # nothing was measured; or there is no home, and so no cache
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the choice of kernels cannot be read, so the CPU's flags decide: %s", brief(error))
        return None
    return chosen if same and chosen in {each.name for each in known(cpu) if each.runs} else None


def named() -> str | None:
    """The instruction set that the user has named; None if there is none, or `apply` has set what was measured."""
    wanted = os.environ.get(VARIABLE)
    return None if wanted == remembered() else wanted


def apply() -> None:
    """Have this process and its children compute with what was measured, unless the user has named something else."""
    if VARIABLE not in os.environ and (chosen := remembered()):
        os.environ[VARIABLE] = chosen
