"""What of files the kernel keeps in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

log = logging.getLogger(__name__)


def release(files: Sequence[tuple[str, int, int]]) -> None:
    """Ask the kernel to drop byte ranges (file, offset, length) that no process maps from its cache."""
    for file, offset, length in files:
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            log.warning("cannot release the cache of %s: %s", file, error.strerror)
            continue
        try:
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
