"""The measurements of kernels in the user's cache, and the choice that follows from them."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from faasmoe import __version__
from faasmoe.errors import OptionError, brief
from faasmoe.experts.kernels.calibration import BFLOAT16, Calibration
from faasmoe.experts.kernels.choice import VARIABLE, Choice
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import known, running
from faasmoe.util.folders.user_cache import CACHE, user_cache

log = logging.getLogger(__name__)

_LARGEST = 64 << 10  # bytes of a file that is read


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """The machine and the kernels that a calibration holds for; others are measured again."""

    architecture: str
    cpu: str  # its name and microcode
    cores: int
    kernels: str  # digest of their sources
    version: str  # of this package

    @classmethod
    def here(cls) -> _Machine:
        """This machine and the kernels of this process. Raises `OSError` if its kernels cannot be loaded."""
        cpu = Cpu.here()
        return cls(
            architecture=cpu.architecture,
            cpu=cpu.model,
            cores=os.cpu_count() or 1,
            kernels=next((each.digest() for each in known(cpu) if each.runs), ""),
            version=__version__,
        )


@dataclass(frozen=True)
class _Kept:
    """The file's contents."""

    machine: _Machine
    calibration: Calibration


def remember(calibration: Calibration) -> Path:
    """Keep what was measured here; returns the file. Raises `OptionError` if it cannot be written."""
    import msgspec

    file = user_cache() / "kernels.json"
    content = msgspec.json.encode(asdict(_Kept(_Machine.here(), calibration)))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _replace(file, content)
    except OSError as error:
        raise OptionError(f"{file}: {brief(error)}; the environment variable {CACHE} names a folder") from error
    return file


def remembered() -> Calibration | None:
    """The calibration in the cache; None if there is none, or one of another machine or of other kernels.

    A file that is not this user's, or holds no calibration, is ignored with a line in the log.
    """
    import msgspec

    try:
        file = user_cache() / "kernels.json"
    except OptionError:  # there is no home, and so no cache
        return None
    try:
        kept = msgspec.json.decode(_contents(file), type=_Kept)
        here = _Machine.here()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s does not count, so the CPU's flags choose kernels: %s", file, brief(error))
        return None
    if kept.machine != here:
        log.info("%s is of another machine or of other kernels, so the CPU's flags choose kernels", file)
        return None
    return kept.calibration


def choice(format: str | None) -> Choice | None:
    """The fastest choice for a model whose weights are in `format` (None: bfloat16); None if nothing was measured."""
    names = running(Cpu.here())
    found = remembered() if names else None
    return found.choice(format or BFLOAT16, names) if found else None


def apply(format: str | None = None) -> None:
    """Have this process and its children compute with that `choice`, unless the user has named another.

    To be called before anything imports kernels.
    """
    if VARIABLE not in os.environ and (chosen := choice(format)):
        os.environ[VARIABLE] = str(chosen)


def _contents(file: Path) -> bytes:
    """Raises `OSError`, and `ValueError` for what this user has not written."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_size > _LARGEST:
            raise ValueError(f"it is no file of this user of up to {_LARGEST} bytes")
        return stream.read(_LARGEST)


def _replace(file: Path, content: bytes) -> None:
    """Write a file that this user alone can read, whole or not at all. Raises `OSError`."""
    fd, draft = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
        os.replace(draft, file)
    except OSError:
        with suppress(OSError):
            os.unlink(draft)
        raise
