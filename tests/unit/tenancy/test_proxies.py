from __future__ import annotations

import pytest

from faasmoe.errors import OptionError
from faasmoe.tenancy.proxies import TrustedProxies

NONE = TrustedProxies.parse(None)
SOME = TrustedProxies.parse(" 127.0.0.1, 10.0.0.0/8 ,::1,2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("127.0.0.1", ["1.2.3.4, 9.9.9.9"], "9.9.9.9"),  # the first is what the client has written
        ("127.0.0.1", ["1.2.3.4, 9.9.9.9, 10.1.2.3"], "9.9.9.9"),
        ("127.0.0.1", ["1.2.3.4", "9.9.9.9,10.1.2.3"], "9.9.9.9"),  # two lines of the header are one list
        ("::ffff:127.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("::1", ["[2600::1]:4711"], "2600::1"),
        ("10.0.0.7", ["9.9.9.9:80"], "9.9.9.9"),
        ("10.0.0.7", ["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
        ("10.0.0.7", ["1.2.3.4, nonsense"], "10.0.0.7"),
        ("10.0.0.7", ["1.2.3.4, nonsense, 10.0.0.8"], "10.0.0.8"),
        ("10.0.0.7", [""], "10.0.0.7"),
        ("9.9.9.9", ["1.2.3.4"], "9.9.9.9"),
        ("11.0.0.1", ["1.2.3.4"], "11.0.0.1"),
        ("", ["1.2.3.4"], ""),
        ("10.0.0.7", [", ".join(["10.0.0.1"] * 10000)], "10.0.0.1"),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_clients(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert SOME.client(peer, forwarded) == client
    assert NONE.client(peer, forwarded) == peer


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--trusted-proxies 10\.0\.0\.0/99: must be addresses or networks"):
        TrustedProxies.parse("127.0.0.1,10.0.0.0/99")
