from __future__ import annotations

import asyncio
from typing import Any

import pytest

from faasmoe.api.admin import ListenerRouter, create_admin_app
from tests.operations import operations_of
from tests.tenancies import PlayedTenancy

HERE, ALSO, ANY, HERE6, ANY6 = "127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"


def went_to(server: Any, app_at: tuple, admin_at: tuple, kind: str = "http") -> str:
    seen = []

    def application(name: str) -> Any:
        async def run(*_: Any) -> None:
            seen.append(name)

        return run

    by = ListenerRouter(application("app"), application("admin"), app_at, admin_at)
    asyncio.run(by({"type": kind, "server": server}, None, None))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(
    ("app", "admin", "to_app", "to_admin"),
    [
        (HERE, HERE, [(HERE, 1)], [(HERE, 2)]),
        (HERE, ALSO, [(HERE, 1), (ALSO, 1)], [(ALSO, 2)]),
        (ANY, HERE, [(HERE, 1), ("10.0.0.1", 1), ("10.0.0.1", 2)], [(HERE, 2)]),
        (HERE, ANY, [(HERE, 1)], [(HERE, 2), ("10.0.0.1", 2)]),
        (ANY6, ANY6, [("2600::1", 1), ("::ffff:10.0.0.1", 1)], [("2600::1", 2), ("::ffff:10.0.0.1", 2)]),
    ],
)
def test_ports_tell_applications_apart(app: str, admin: str, to_app: list, to_admin: list) -> None:
    for server in to_app:
        assert went_to(server, (app, 1), (admin, 2)) == "app", server
    for server in to_admin:
        assert went_to(server, (app, 1), (admin, 2)) == "admin", server


@pytest.mark.parametrize(
    ("app", "admin", "to_app", "to_admin"),
    [
        (HERE, ALSO, HERE, ALSO),
        (ALSO, HERE, ALSO, HERE),
        (HERE, HERE6, HERE, HERE6),
        (HERE6, ANY, HERE6, "10.0.0.1"),
        (ANY, HERE6, "10.0.0.1", HERE6),
        (ANY, ANY6, "10.0.0.1", "2600::1"),  # where sockets of IPv6 are not of IPv4 too
        (ANY6, ANY, "2600::1", "10.0.0.1"),
    ],
)
def test_addresses_do_where_both_have_one_port(app: str, admin: str, to_app: str, to_admin: str) -> None:
    """All pairs that Linux lets listen at the same time."""
    app_at, admin_at = ((host, 8000, 0, 0) if ":" in host else (host, 8000) for host in (app, admin))
    assert went_to((to_app, 8000), app_at, admin_at) == "app"
    assert went_to((to_admin, 8000), app_at, admin_at) == "admin"


def test_what_is_not_known_is_never_an_admins() -> None:
    assert went_to(None, (HERE, 1), (HERE, 2)) == "app"
    assert went_to(("/run/socket", None), (HERE, 1), (HERE, 2)) == "app"
    assert went_to((HERE, 2), (HERE, 1), (HERE, 2), "lifespan") == "app"


def test_generated_clients_keep_their_names() -> None:
    app = create_admin_app(PlayedTenancy(), None)  # type: ignore[arg-type]  # played, and no metrics are read
    assert operations_of(app) == {
        ("get", "/metrics"): "page_metrics_get",
        ("get", "/admin/tenants"): "tenants_admin_tenants_get",
        ("post", "/admin/tenants"): "add_admin_tenants_post",
        ("get", "/admin/tenants/{name}"): "show_admin_tenants__name__get",
        ("patch", "/admin/tenants/{name}"): "change_admin_tenants__name__patch",
        ("delete", "/admin/tenants/{name}"): "remove_admin_tenants__name__delete",
        ("get", "/admin/tenants/{name}/keys"): "keys_admin_tenants__name__keys_get",
        ("post", "/admin/tenants/{name}/keys"): "create_admin_tenants__name__keys_post",
        ("delete", "/admin/keys/{key_id}"): "revoke_admin_keys__key_id__delete",
        ("get", "/admin/usage"): "usage_admin_usage_get",
    }
    assert {"NewTenant", "NewKey", "Settings"} < set(app.openapi()["components"]["schemas"])
