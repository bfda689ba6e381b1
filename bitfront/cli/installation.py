"""The installation that commands of the server work on: its settings, database and files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bitfront.cli.server import need_extra
from bitfront.errors import InvalidArgument, StorageError

if TYPE_CHECKING:
    from bitfront.artifacts import Artifacts
    from bitfront.settings import Settings
    from bitfront.store import Store

_WAIT_SECONDS = 30.0


def read_settings() -> Settings:
    """Settings from the environment.

    Raises:
        InvalidArgument: a variable has a value that is not allowed.
    """
    need_extra()
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from bitfront.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"BITFRONT_{'_'.join(map(str, first['loc'])).upper()}"
        raise InvalidArgument(
            f"{name} cannot be {str(first['input'])[:80]!r}: {first['msg']}."
        ) from error
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        name = f"BITFRONT_{named[1].upper()}" if named else "A setting of BITFRONT_*"
        raise InvalidArgument(f'{name} is not JSON: give a list, such as ["/models"].') from error


def open_store(settings: Settings, answer_seconds: float = 30.0) -> Store:
    """The database, once it answers.

    Args:
        settings: of the installation.
        answer_seconds: how long a PostgreSQL server may be silent before it counts as down.

    Raises:
        StorageError: it does not, or its folder cannot be made.
    """
    from bitfront.store import Store

    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"Cannot write to {settings.home} ({error.strerror}): set BITFRONT_HOME to another "
            "folder."
        ) from error
    store = Store(settings.database, settings.lease_seconds, answer_seconds)
    # A file is there or not; a server may be starting.
    store.db.wait(0.0 if settings.database.startswith("sqlite") else _WAIT_SECONDS)
    return store


def open_artifacts(settings: Settings) -> Artifacts:
    """Where files are kept, once it is known that they can be.

    Raises:
        InvalidArgument: nothing that is installed knows such a place.
        StorageError: it cannot be reached or written to.
    """
    from bitfront.artifacts import Artifacts

    artifacts = Artifacts(settings.artifacts)
    artifacts.check()
    return artifacts
