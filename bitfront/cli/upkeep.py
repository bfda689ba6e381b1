"""bitfront upgrade, collect, key: upkeep of an installation, on its database itself."""

from __future__ import annotations

import getpass
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bitfront.cli.installation import open_store, read_settings
from bitfront.cli.options import AsJson

if TYPE_CHECKING:
    from bitfront.store import Store
    from bitfront.store.records import ApiKey

key = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

_HOUR = 3600.0
_DAY = 24 * _HOUR


def upgrade() -> None:
    """Bring the database up to this version; what is up to date is left alone."""
    store = open_store(read_settings())
    store.db.upgrade()
    print("The database is up to date.")


def collect() -> None:
    """Remove files that no study refers to, and old rows; `bitfront serve` does so every hour."""
    settings = read_settings()
    store = open_store(settings)
    store.db.check_schema()
    from bitfront.artifacts import Artifacts
    from bitfront.collection import collect as collect_unused

    removed = collect_unused(store, Artifacts(settings.artifacts), audit_days=settings.audit_days)
    rows = f"{removed.n_rows} {'row' if removed.n_rows == 1 else 'rows'}"
    print(
        f"Removed {removed.n_unused} unused and {removed.n_unlisted} unlisted files, "
        f"and {rows} that nobody asks for any more."
    )


@key.command("create")
def create_key(
    owner: Annotated[str, typer.Argument(help="Whose studies it makes and sees.")],
    scopes: Annotated[str, typer.Option(help="Some of read,write,admin.")] = "read,write",
    days: Annotated[
        float | None, typer.Option(help="How long it holds, at most 36525. Default: for ever.")
    ] = None,
    max_running: Annotated[
        int, typer.Option(min=1, help="Studies that the owner may have unfinished at once.")
    ] = 16,
    max_device_hours: Annotated[
        float | None,
        typer.Option(
            min=0, help="Hours that workers may hold tasks of the owner. Default: no bound."
        ),
    ] = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    store = open_store(read_settings())
    store.db.upgrade()
    names = [name.strip() for name in scopes.split(",") if name.strip()]
    seconds = None if days is None else days * _DAY
    made, secret = store.keys.create(owner, names, max_running, seconds, max_device_hours, _who())
    print(f"Key {made.id} of {made.owner}, shown this once:", file=sys.stderr)
    print(secret)
    _tell_of_local_studies(store, made)


@key.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List keys, oldest first, without their secrets."""
    store = open_store(read_settings())
    store.db.check_schema()
    for each in store.keys.all():
        hours = store.keys.device_seconds(each.owner) / _HOUR
        row = {**asdict(each), "used_device_hours": hours}
        print(json.dumps(row) if as_json else _line(each, hours))


@key.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a key.")],
) -> None:
    """End a key; requests with it are refused from now on."""
    store = open_store(read_settings())
    store.db.check_schema()
    store.keys.revoke(key_id, _who())
    print(f"Key {key_id} is revoked.")


def _tell_of_local_studies(store: Store, made: ApiKey) -> None:
    """Say so where a key does not see what was made before there were any."""
    from bitfront.store.keys import LOCAL

    is_blind = made.owner != LOCAL and "admin" not in made.scopes
    if is_blind and store.studies.page(LOCAL, n=1):
        print(
            f"Studies made without a key belong to {LOCAL}: this key does not see them, one of "
            f"`bitfront key create {LOCAL}` does.",
            file=sys.stderr,
        )


def _line(each: ApiKey, hours: float) -> str:
    state = "valid"
    if each.expires_at is not None:
        state = f"valid until {_day(each.expires_at)}"
        if each.expires_at <= datetime.now(UTC).timestamp():
            state = f"expired {_day(each.expires_at)}"
    if each.revoked_at is not None:
        state = f"revoked {_day(each.revoked_at)}"
    bound = "" if each.max_device_hours is None else f" of {each.max_device_hours:g}"
    used = f"{hours:.4g}{bound} device hours"
    return f"{each.id}  {each.owner}  {','.join(each.scopes)}  {state}  {used}"


def _who() -> str:
    """Who made or ended a key, for the audit log; a container's user may have no name."""
    from bitfront.store.keys import OPERATOR

    try:
        return f"{OPERATOR} {getpass.getuser()}"
    except (OSError, KeyError):
        return OPERATOR


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (OverflowError, ValueError):  # earlier versions made keys for any time
        return datetime.max.date().isoformat()
