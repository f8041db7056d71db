"""Texts of errors for clients, without the folders of this machine."""

from __future__ import annotations

import re

# a path in quotes, which may have spaces, or one that stands alone; not the slash in `tokens/s`
_QUOTED = re.compile(r"""(?<=['"])/(?:[^'"/]*/)*(?=[^'"/]*['"])""")
_BARE = re.compile(r"""(?<![\w.'"/\])])/(?:[^\s'"/]+/)*(?=[^\s'"/])""")


def public(text: str) -> str:
    """`text` with files by their names alone."""
    return _BARE.sub("", _QUOTED.sub("", text))
