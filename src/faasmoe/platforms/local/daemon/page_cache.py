"""The kernel's page cache of functions' files."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from faasmoe.platforms.base import FileRange

log = logging.getLogger(__name__)


_FOLIO = 2 << 20  # the largest that the kernel keeps files in; it drops one only as a whole


def release(files: Sequence[FileRange]) -> None:
    """Ask the kernel to drop byte ranges from its cache, and the folios at their ends.

    What a process maps stays.
    """
    for part in files:
        try:
            fd = os.open(part.file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            log.warning("cannot release the cache of %s: %s", part.file, error.strerror)
            continue
        try:
            start = part.offset // _FOLIO * _FOLIO
            os.posix_fadvise(
                fd, start, -(-(part.offset + part.length) // _FOLIO) * _FOLIO - start, os.POSIX_FADV_DONTNEED
            )
        finally:
            os.close(fd)
