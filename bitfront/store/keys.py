"""API keys, kept as salted hashes, and the log of who did what."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from bitfront.errors import InvalidArgument, NotFound, Unauthorised
from bitfront.store.clock import NOW
from bitfront.store.database import Database
from bitfront.store.ids import new_id
from bitfront.store.quotas import device_seconds
from bitfront.store.records import ApiKey
from bitfront.store.tables import api_keys, audit

SCOPES = ("read", "write", "admin")
"""Reading studies; submitting and changing them; seeing workers and everyone's studies."""
LOCAL = "local"
"""Owner of what is done on a machine without keys."""
OPERATOR = "operator"
"""Who does what is done on the database itself."""
_DAY = 24 * 3600.0
MAX_SECONDS = 36_525 * _DAY
"""Longest time that a key may hold: 100 years."""
_MAX_OWNER = 64
_MAX_RUNNING = 2**31 - 1
"""Largest whole number that every database stores."""
_KEY = re.compile(r"bf_([0-9a-f]{32})_([0-9a-f]{48})")

_NOTE = sa.insert(audit).values(at=NOW)


@dataclass(frozen=True)
class Keys:
    """Keys of a database.

    Args:
        db: where they are.
    """

    db: Database

    def create(
        self,
        owner: str,
        scopes: Sequence[str] = ("read", "write"),
        max_running: int = 16,
        seconds: float | None = None,
        max_device_hours: float | None = None,
        by: str = OPERATOR,
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            owner: whose studies it sees; 1 to 64 printable characters.
            scopes: any of `SCOPES`.
            max_running: studies that the owner may have unfinished at once.
            seconds: how long it holds, at most `MAX_SECONDS`; `None` for ever.
            max_device_hours: hours that workers may hold the owner's tasks; `None` for no bound.
            by: who makes it, for the audit log.

        Returns:
            The key, and its secret text, which is shown this once.

        Raises:
            InvalidArgument: a value that no key can have; says which.
        """
        _check_owner(owner, scopes)
        _check_limits(max_running, seconds, max_device_hours)
        key_id, secret, salt = new_id(), secrets.token_hex(24), secrets.token_hex(16)
        row = {
            "id": key_id,
            "owner": owner,
            "salt": salt,
            "hash": _hash(salt, secret),
            "scopes": ",".join(dict.fromkeys(scopes)),
            "max_running": max_running,
            "max_device_hours": max_device_hours,
            "created_at": NOW,
            "expires_at": None if seconds is None else NOW + seconds,
        }
        with self.db.writing() as connection:
            connection.execute(sa.insert(api_keys).values(row))
            _note(connection, by, key_id, "create_key", f"{owner}: {row['scopes']}", 201)
            made = connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).one()
        return _key(made), f"bf_{key_id}_{secret}"

    def verified(self, text: str) -> ApiKey:
        """The key of a secret text.

        Raises:
            Unauthorised: unknown, expired or revoked; which of them is not said.
        """
        found = _KEY.fullmatch(text)
        key_id, secret = found.groups() if found else ("", "")
        with self.db.reading() as connection:
            over = sa.or_(
                api_keys.c.revoked_at.is_not(None),
                sa.and_(api_keys.c.expires_at.is_not(None), api_keys.c.expires_at <= NOW),
            )
            query = sa.select(api_keys, over.label("is_over")).where(api_keys.c.id == key_id)
            row = connection.execute(query).first()
        # An unknown id takes as long as a wrong secret.
        salt, stored = (row.salt, row.hash) if row else ("0" * 32, "0" * 64)
        is_right = hmac.compare_digest(_hash(salt, secret), stored)
        if row is None or not is_right or row.is_over:
            raise Unauthorised("This API key is not valid: ask an administrator for one.")
        return _key(row)

    def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        with self.db.reading() as connection:
            query = sa.select(api_keys).order_by(api_keys.c.id)
            return [_key(row) for row in connection.execute(query)]

    def device_seconds(self, owner: str) -> float:
        """How long workers held tasks of an owner."""
        with self.db.reading() as connection:
            return device_seconds(connection, owner)

    def exist(self) -> bool:
        """Whether any key was ever made: without one, the API serves this machine only."""
        with self.db.reading() as connection:
            return connection.execute(sa.select(api_keys.c.id).limit(1)).first() is not None

    def revoke(self, key_id: str, by: str = OPERATOR) -> None:
        """End a key.

        Args:
            key_id: which one.
            by: who ends it, for the audit log.

        Raises:
            NotFound: there is none of that id.
        """
        with self.db.writing() as connection:
            place = api_keys.c.id == key_id
            change = sa.update(api_keys).where(place).values(revoked_at=NOW)
            found = connection.execute(change.returning(api_keys.c.owner)).scalar()
            if found is None:
                raise NotFound(f"No API key {key_id!r}.")
            _note(connection, by, key_id, "revoke_key", found, 204)

    def note(self, owner: str, key_id: str | None, action: str, target: str, status: int) -> None:
        """Write down who did what, and how it ended."""
        with self.db.writing() as connection:
            _note(connection, owner, key_id, action, target, status)


def _check_owner(owner: str, scopes: Sequence[str]) -> None:
    if not (0 < len(owner) <= _MAX_OWNER and owner.isprintable()):
        shown = _printable(owner[: _MAX_OWNER + 1])
        raise InvalidArgument(
            f"Cannot make a key of owner '{shown}': "
            f"give a name of 1 to {_MAX_OWNER} printable characters."
        )
    if not scopes or not set(scopes) <= set(SCOPES):
        shown = _printable(", ".join(scopes))[:80]
        raise InvalidArgument(f"Given scopes '{shown}': give some of {', '.join(SCOPES)}.")


def _check_limits(max_running: int, seconds: float | None, hours: float | None) -> None:
    if not 1 <= max_running <= _MAX_RUNNING:
        raise InvalidArgument(
            f"Given {max_running:,} studies that may run at once: give 1 to {_MAX_RUNNING:,}."
        )
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        raise InvalidArgument(
            f"A key cannot hold for {seconds:g} seconds: give more than 0 and at most "
            f"{MAX_SECONDS / _DAY:,.0f} days, or no time for one that holds for ever."
        )
    if hours is not None and not 0 <= hours < math.inf:
        raise InvalidArgument(
            f"Given {hours:g} device hours: give a finite number from 0 on, or none for no bound."
        )


def _note(
    connection: Connection, owner: str, key_id: str | None, action: str, target: str, status: int
) -> None:
    row: dict[str, object] = {"owner": owner[:64], "key_id": key_id, "action": action}
    row |= {"target": _printable(target)[:200], "status": status}
    connection.execute(_NOTE, row)


def _printable(text: str) -> str:
    r"""The text with what is not printable escaped: PostgreSQL stores no NUL.

    >>> _printable("a\0b\n")
    'a\\x00b\\n'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _hash(salt: str, secret: str) -> str:
    # Secrets have 192 random bits: there is nothing a slow hash would have to protect.
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        row.id,
        row.owner,
        tuple(row.scopes.split(",")),
        row.max_running,
        row.max_device_hours,
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )
