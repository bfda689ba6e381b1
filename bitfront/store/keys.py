"""API keys, kept as salted hashes, and the log of who did what."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Row

from bitfront.errors import InvalidArgument, NotFound, Unauthorised
from bitfront.store.clock import NOW
from bitfront.store.database import Database
from bitfront.store.ids import new_id
from bitfront.store.records import ApiKey
from bitfront.store.tables import api_keys, audit

SCOPES = ("read", "write", "admin")
"""Reading studies; submitting and changing them; seeing workers and everyone's studies."""
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
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            owner: whose studies it sees.
            scopes: any of `SCOPES`.
            max_running: studies that the owner may have unfinished at once.
            seconds: how long it holds; `None` for ever.

        Returns:
            The key, and its secret text, which is shown this once.

        Raises:
            InvalidArgument: an unknown scope, or no owner.
        """
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes or not owner:
            raise InvalidArgument(
                f"Given owner {owner!r} and scopes {', '.join(scopes)}: "
                f"a key needs an owner and some of {', '.join(SCOPES)}."
            )
        key_id, secret, salt = new_id(), secrets.token_hex(24), secrets.token_hex(16)
        row = {
            "id": key_id,
            "owner": owner,
            "salt": salt,
            "hash": _hash(salt, secret),
            "scopes": ",".join(scopes),
            "max_running": max_running,
            "created_at": NOW,
            "expires_at": None if seconds is None else NOW + seconds,
        }
        with self.db.writing() as connection:
            connection.execute(sa.insert(api_keys).values(row))
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

    def exist(self) -> bool:
        """Whether any key was ever made: without one, the API serves this machine only."""
        with self.db.reading() as connection:
            return connection.execute(sa.select(api_keys.c.id).limit(1)).first() is not None

    def revoke(self, key_id: str) -> None:
        """End a key.

        Raises:
            NotFound: there is none of that id.
        """
        with self.db.writing() as connection:
            place = api_keys.c.id == key_id
            change = sa.update(api_keys).where(place).values(revoked_at=NOW)
            if not connection.execute(change).rowcount:
                raise NotFound(f"No API key {key_id!r}.")

    def note(self, owner: str, key_id: str | None, action: str, target: str, status: int) -> None:
        """Write down who did what, and how it ended."""
        row: dict[str, object] = {"owner": owner, "key_id": key_id, "action": action}
        row |= {"target": target[:200], "status": status}
        with self.db.writing() as connection:
            connection.execute(_NOTE, row)


def _hash(salt: str, secret: str) -> str:
    # Secrets have 192 random bits: there is nothing a slow hash would have to protect.
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        row.id,
        row.owner,
        tuple(row.scopes.split(",")),
        row.max_running,
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )
