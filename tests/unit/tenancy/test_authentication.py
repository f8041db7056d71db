from __future__ import annotations

import time
from contextlib import suppress

import pytest

from faasmoe.errors import LimitExceeded, Unauthenticated, WrongHost
from faasmoe.tenancy.authentication import ANYBODY, Authentication
from faasmoe.tenancy.brute_force import MOST
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.keys import create_key, revoke_key
from faasmoe.tenancy.ledger.ledger import Idle, Ledger
from faasmoe.tenancy.snapshot import Directory
from faasmoe.tenancy.tenants import Tenant, add_tenant, remove_tenant, set_tenant

HERE = "127.0.0.1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(database: Database) -> Directory:
    return Directory(database)


@pytest.fixture
def door(directory: Directory, clock: Clock) -> Authentication:
    return Authentication(directory, added=0, clock=clock, calendar=time.time)


def test_without_tenants_anybody_may_ask_where_that_is_allowed(directory: Directory, door: Authentication) -> None:
    assert door.open
    assert door.tenant(None, HERE) is ANYBODY
    assert door.tenant("whatever", HERE) is ANYBODY
    strict = Authentication(directory, None, time.monotonic, time.time)
    with pytest.raises(Unauthenticated, match="an API key is needed"):
        strict.tenant(None, HERE)


def test_a_server_closes_with_the_first_tenant_and_follows_changes(
    database: Database, directory: Directory, door: Authentication
) -> None:
    add_tenant(database, Tenant("acme", weight=2))
    text, key = create_key(database, "acme")
    directory.refresh()
    with pytest.raises(Unauthenticated):
        door.tenant(None, HERE)
    caller = door.tenant(text, HERE)
    assert (caller.name, caller.weight, caller.key_id) == ("acme", 2, key.id)
    set_tenant(database, "acme", {"rpm": 7})
    directory.refresh()
    caller = door.tenant(text, HERE)
    assert caller.tenant
    assert caller.tenant.rpm == 7
    revoke_key(database, key.id)
    directory.refresh()
    with pytest.raises(Unauthenticated, match="does not work any more"):
        door.tenant(text, HERE)


def test_keys_of_removed_tenants_and_expired_keys_open_nothing(
    database: Database, directory: Directory, clock: Clock
) -> None:
    calendar = Clock()
    calendar.now = time.time()
    door = Authentication(directory, added=0, clock=clock, calendar=calendar)
    for name in ("acme", "other"):
        add_tenant(database, Tenant(name))
    brief, lasting = create_key(database, "acme", 1)[0], create_key(database, "acme")[0]
    directory.refresh()
    assert {door.tenant(text, HERE).name for text in (brief, lasting)} == {"acme"}
    calendar.now += 86401
    with pytest.raises(Unauthenticated):
        door.tenant(brief, HERE)
    remove_tenant(database, "acme")
    directory.refresh()
    with pytest.raises(Unauthenticated):
        door.tenant(lasting, HERE)


def test_admins_keys_and_tenants_keys_open_different_doors(
    database: Database, directory: Directory, door: Authentication
) -> None:
    add_tenant(database, Tenant("acme"))
    tenants, admins = create_key(database, "acme")[0], create_key(database, None)[0]
    directory.refresh()
    assert door.admin(admins, HERE).startswith("fm-admin-")
    for call, text in ((door.admin, tenants), (door.tenant, admins), (door.admin, None)):
        for _ in range(2 * MOST):  # who has a key and knocks at the wrong door does not guess
            with pytest.raises(Unauthenticated):
                call(text, HERE)
    assert door.tenant(tenants, HERE).name == "acme"


def test_without_tenants_admin_routes_still_need_a_key(door: Authentication) -> None:
    with pytest.raises(Unauthenticated, match="an admin's key is needed"):
        door.admin(None, HERE)


@pytest.mark.parametrize(
    "text", ["", "x", "-", "fm-", "' OR 1=1 --", "fm-a-" + "b" * 10**6, "\r\nX-Admin: 1", "é", "../../x", "\0"]
)
def test_what_is_no_key_opens_nothing(
    database: Database, directory: Directory, door: Authentication, text: str
) -> None:
    add_tenant(database, Tenant("acme"))
    directory.refresh()
    with pytest.raises(Unauthenticated) as caught:
        door.tenant(text, HERE)
    assert text == "" or text not in str(caught.value)


def test_guessing_is_slowed_and_right_keys_still_work_beside_it(
    database: Database, directory: Directory, door: Authentication, clock: Clock
) -> None:
    """From the same address, which may be a proxy's, and with the same id: nobody can lock others out."""
    add_tenant(database, Tenant("acme"))
    right, key = create_key(database, "acme")
    admins, admin = create_key(database, None)
    directory.refresh()
    guesses = [f"{key.id}-{'x' * 43}", f"{admin.id}-{'x' * 43}", "fm-nothing-x"]
    for i in range(MOST):
        with pytest.raises(Unauthenticated):
            door.tenant(guesses[i % 3], HERE)
    for text in guesses:
        with pytest.raises(LimitExceeded) as caught:
            door.tenant(text, HERE)
        assert caught.value.retry_after == 60
    assert door.tenant(right, HERE).name == "acme"
    assert door.admin(admins, HERE) == admin.id
    with pytest.raises(Unauthenticated):
        door.tenant(guesses[0], "10.0.0.9")
    clock.now += 60
    with pytest.raises(Unauthenticated):
        door.tenant(guesses[0], HERE)
    assert door.wrong == MOST + 5


@pytest.mark.parametrize("recorded", [True, False])
def test_a_server_that_had_tenants_stays_closed(
    database: Database, directory: Directory, door: Authentication, recorded: bool
) -> None:
    """Also after a restart, and whether the tenant has left records or not."""
    add_tenant(database, Tenant("acme"))
    if recorded:
        with Ledger(database).start() as ledger:
            assert ledger.add(Idle(tenant="acme", model="m", began=1.0, ended=2.0, gb_seconds=1.0)).result(30)
    remove_tenant(database, "acme")  # before any of them has looked
    directory.refresh()
    restarted = Authentication(Directory(database), 0, time.monotonic, time.time)
    for each in (door, restarted):
        assert not each.open
        with pytest.raises(Unauthenticated):
            each.tenant(None, HERE)


def test_open_by_choice_lasts_until_the_next_tenant(database: Database, directory: Directory) -> None:
    add_tenant(database, Tenant("acme"))
    remove_tenant(database, "acme")
    directory.refresh()
    door = Authentication(directory, directory.now.added, time.monotonic, time.time)
    assert door.open
    add_tenant(database, Tenant("bolt"))
    directory.refresh()
    assert not door.open
    remove_tenant(database, "bolt")
    directory.refresh()
    assert not door.open


def test_admins_keys_alone_close_nothing(database: Database, directory: Directory, door: Authentication) -> None:
    create_key(database, None)
    directory.refresh()
    assert door.open


LOOPBACK = ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "127.9.9.9:1", "[::1]", "[::1]:8000"]
FOREIGN = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "localhost@evil.example", "evil.localhost", "",
    "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0", "[::]", "[::2]:80", "::1", "127.0.0.1:", "127.1", "127.0.0.999",
    "localhost, evil.example", "localhost:8000:80", "\uff1127.0.0.1", "2130706433",
]  # fmt: skip


def test_an_open_server_on_loopback_answers_to_loopback_names_only(
    directory: Directory, database: Database
) -> None:
    door = Authentication(directory, 0, time.monotonic, time.time, local=True)
    for host in LOOPBACK:
        door.check_host([host])
    for hosts in ([], ["localhost", "localhost"], ["localhost", "evil.example"], *([host] for host in FOREIGN)):
        with pytest.raises(WrongHost):
            door.check_host(hosts)
    Authentication(directory, 0, time.monotonic, time.time).check_host(["evil.example"])  # open for everybody
    add_tenant(database, Tenant("acme"))
    directory.refresh()
    door.check_host(["evil.example"])  # a page has no key


def test_a_key_is_compared_in_the_same_time_whatever_differs(
    database: Database, directory: Directory, door: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a measurement, which would depend on the machine: every way there is has one digest and one comparison."""
    add_tenant(database, Tenant("acme"))
    text, key = create_key(database, "acme")
    directory.refresh()
    calls: list[list[int]] = []

    def compare(given: str, wanted: str) -> bool:
        calls[-1].append(len(given))
        return given == wanted

    monkeypatch.setattr("faasmoe.tenancy.keys.hmac.compare_digest", compare)
    for guess in (text, f"{key.id}-x", "fm-nobody-x"):
        calls.append([])
        with suppress(Unauthenticated):
            door.tenant(guess, HERE)
    assert calls == [[64]] * 3
