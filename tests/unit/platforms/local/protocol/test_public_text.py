from __future__ import annotations

import pytest

from faasmoe.platforms.local.protocol.public_text import public


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[Errno 2] No such file or directory: '/srv/models/my moe/a.safetensors'",
         "[Errno 2] No such file or directory: 'a.safetensors'"),
        ("/run/user/0/faasmoe-x/1a-1.sock: refused", "1a-1.sock: refused"),
        ("cannot map /srv/a.bin (and /srv/b.bin)", "cannot map a.bin (and b.bin)"),
        ("path=/etc/passwd, again", "path=passwd, again"),
        ("41.9 tokens/s of application/json, 3 / 4", "41.9 tokens/s of application/json, 3 / 4"),
        ("", ""),
    ],
)  # fmt: skip
def test_files_are_told_by_name_alone(text: str, wanted: str) -> None:
    assert public(text) == wanted
