from __future__ import annotations

import time
from pathlib import Path

import pytest

from faasmoe.errors import NoSuchName, TenancyError
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.keys import create_key, id_of, list_keys, matches, read_keys, revoke_key
from faasmoe.tenancy.tenants import Tenant, add_tenant


@pytest.fixture(autouse=True)
def acme(database: Database) -> None:
    add_tenant(database, Tenant("acme"))


def test_a_key_is_itself_and_no_other(database: Database) -> None:
    text, key = create_key(database, "acme")
    other, _ = create_key(database, "acme")
    with database.read() as connection:
        mine, its = read_keys(connection)
    if mine.key.id != key.id:
        mine, its = its, mine
    assert (mine.key, id_of(text)) == (key, key.id)
    assert matches(text, mine)
    assert matches(other, its)
    wrong = [
        other,
        text[:-1],
        text + "a",
        text.upper(),
        "",
        key.id,
        f"{key.id}-{other.rpartition('-')[2]}",
        "\ud800",
    ]
    assert not any(matches(guess, mine) for guess in wrong)
    assert not matches(text, None)


def test_secrets_are_long_and_never_stored(database: Database, tmp_path: Path) -> None:
    text, _ = create_key(database, "acme")
    secret = text.rpartition("-")[2]
    assert len(secret) == 43
    assert len(set(secret)) > 10
    database.close()
    assert not any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_whose_a_key_is_can_be_seen(database: Database) -> None:
    text, key = create_key(database, "acme")
    admins, admin = create_key(database, None)
    assert (text[:3], key.tenant, key.admin) == ("fm-", "acme", False)
    assert (admins[:9], admin.tenant, admin.admin) == ("fm-admin-", None, True)
    assert list_keys(database, "acme") == [key]
    assert {each.id for each in list_keys(database)} == {key.id, admin.id}


def test_keys_expire(database: Database) -> None:
    _, key = create_key(database, "acme", 2)
    _, lasting = create_key(database, "acme")
    now = time.time()
    assert [key.good(now), key.good(now + 2 * 86400 - 60), key.good(now + 2 * 86400)] == [True, True, False]
    assert lasting.good(now + 1e9)
    for days in (0, -1, float("nan"), 1e9):
        with pytest.raises(TenancyError, match="must be more than 0"):
            create_key(database, "acme", days)


@pytest.mark.parametrize("whole", [True, False])
def test_a_revoked_key_stays_revoked(database: Database, whole: bool) -> None:
    text, key = create_key(database, "acme")
    revoked = revoke_key(database, text if whole else key.id)
    assert revoked.revoked
    assert not revoked.good(time.time())
    assert revoke_key(database, key.id) == revoked


@pytest.mark.parametrize("key_id", ["", "fm-", "fm-1234567890", "../x", "' OR 1=1 --", "%", "x" * 1000])
def test_keys_that_are_not_there_cannot_be_revoked(database: Database, key_id: str) -> None:
    _, key = create_key(database, "acme")
    with pytest.raises(NoSuchName, match="there is no key of that id"):
        revoke_key(database, key_id)
    assert list_keys(database) == [key]
