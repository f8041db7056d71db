"""API keys.

A key is `ID-SECRET`. The id, by which it is listed and revoked, begins with `fm-`, or `fm-admin-` for an admin's. The
secret has 256 random bits and is shown once. What is stored is the SHA-256 of the whole key: a slow hash protects
passwords, which can be guessed; 256 bits cannot be, however fast the hash, and it is computed for each request. The id
in it makes each hash one of its own, as a salt would.
"""

from __future__ import annotations

import hmac
import secrets
import string
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from faasmoe.errors import NoSuchName, TenancyError
from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.tenants import milliseconds, note_change, read_tenant

LONGEST_KEY = 100  # characters that are worth looking at
_TENANTS, _ADMINS = "fm-", "fm-admin-"
_LETTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 10
_LONGEST_ID = len(_ADMINS) + _ID_LENGTH
_SECRET = string.ascii_letters + string.digits
_SECRET_LENGTH = 43  # of 62 letters: 256 bits
_NOBODYS = sha256(secrets.token_bytes()).hexdigest()
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. Times are in seconds since the epoch."""

    id: str
    tenant: str | None  # None: an admin's
    created: float
    expires: float | None = None
    revoked: float | None = None

    @property
    def admin(self) -> bool:
        """True if the key is for admin routes only."""
        return self.tenant is None

    def good(self, now: float) -> bool:
        """True if the key is valid now."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def facts(self) -> dict[str, Any]:
        """The key as JSON: neither the key itself nor its hash."""
        return {**asdict(self), "admin": self.admin}


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the database has it."""

    key: Key
    digest: str


def create_key(database: Database, tenant: str | None, days: float | None = None) -> tuple[str, Key]:
    """A new key for a tenant, or for an admin, good for so many days. Returns its text, which is stored nowhere.

    Raises `NoSuchName`, or `TenancyError` if the days are out of range.
    """
    if days is not None and not 0 < days <= 36500:  # so that NaN is refused
        raise TenancyError(f"expires in {days} days: must be more than 0 and at most 36500")
    prefix = _ADMINS if tenant is None else _TENANTS
    key_id = prefix + "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH))
    text = f"{key_id}-{''.join(secrets.choice(_SECRET) for _ in range(_SECRET_LENGTH))}"
    created = milliseconds(time.time())
    expires = None if days is None else created + milliseconds(days * _DAY)
    row = {"id": key_id, "tenant": tenant, "digest": _digest(text), "created": created, "expires": expires}
    with database.write() as connection:
        if tenant is not None:
            read_tenant(connection, tenant)
        connection.execute(insert(tables.keys).values(row))
        note_change(connection)
    return text, Key(key_id, tenant, created / 1000, None if expires is None else expires / 1000)


def list_keys(database: Database, tenant: str | None = None) -> list[Key]:
    """All keys, or those of a tenant, oldest first. Raises `NoSuchName`."""
    with database.read() as connection:
        if tenant is not None:
            read_tenant(connection, tenant)
        return [stored.key for stored in read_keys(connection) if tenant in (None, stored.key.tenant)]


def revoke_key(database: Database, which: str) -> Key:
    """Close a key for good, by its id or the whole of it. Revoking it again changes nothing. Raises `NoSuchName`."""
    with database.write() as connection:
        key_id = which if len(which) <= _LONGEST_ID else id_of(which)
        row = connection.execute(select(tables.keys).where(tables.keys.c.id == key_id)).first()
        if row is None:  # what was given may be most of a key, which is not to be repeated
            raise NoSuchName("there is no key of that id; keys list shows all ids, which are what keys begin with")
        if row.revoked is None:
            revoked = milliseconds(time.time())
            connection.execute(update(tables.keys).where(tables.keys.c.id == key_id).values(revoked=revoked))
            note_change(connection)
            row = connection.execute(select(tables.keys).where(tables.keys.c.id == key_id)).one()
    return _key(row)


def read_keys(connection: Connection) -> list[StoredKey]:
    """All keys, oldest first."""
    rows = connection.execute(select(tables.keys).order_by(tables.keys.c.created, tables.keys.c.id))
    return [StoredKey(_key(row), row.digest) for row in rows]


def id_of(text: str) -> str:
    """The id that a key's text claims to have."""
    return text.rpartition("-")[0]


def matches(text: str, stored: StoredKey | None) -> bool:
    """True if `text` is the stored key. Takes the same time for every text, and also if there is no key."""
    digest = _NOBODYS if stored is None else stored.digest
    return hmac.compare_digest(_digest(text), digest)


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()


def _key(row: Row[Any]) -> Key:
    expires, revoked = (None if value is None else value / 1000 for value in (row.expires, row.revoked))
    return Key(row.id, row.tenant, row.created / 1000, expires, revoked)
