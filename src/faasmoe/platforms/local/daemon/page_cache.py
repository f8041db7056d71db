"""What of files the kernel keeps in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

log = logging.getLogger(__name__)


_FOLIO = 2 << 20  # the largest that the kernel keeps files in; it drops one only as a whole


def release(files: Sequence[tuple[str, int, int]]) -> None:
    """Ask the kernel to drop byte ranges (file, offset, length) from its cache, and the folios at their ends.

    What a process maps stays.
    """
    for file, offset, length in files:
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            log.warning("cannot release the cache of %s: %s", file, error.strerror)
            continue
        try:
            start = offset // _FOLIO * _FOLIO
            os.posix_fadvise(fd, start, -(-(offset + length) // _FOLIO) * _FOLIO - start, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
