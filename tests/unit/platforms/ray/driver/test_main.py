"""How the driver tells that there is no Ray."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.ray.driver import __main__ as driver
from tests.unit.platforms.ray.driver.test_driver import order

MODULE = "faasmoe.platforms.ray.driver.ray_cluster"


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match="Ray is not installed here; it comes with the extra `ray`"):
        driver._connect(order())


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError, ValueError])
def test_what_ray_says_is_told_with_the_address(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def connect(address: str, namespace: str, pool: str) -> None:
        raise error(f"no Ray at {address} for {namespace}, {pool}")

    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(RayCluster=SimpleNamespace(connect=connect)))
    with pytest.raises(OptionError, match="address auto: no Ray at auto for n, p"):
        driver._connect(order())
