"""The server that commands speak to, and the studies on it that they name."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from bitfront.errors import InvalidArgument

if TYPE_CHECKING:
    from bitfront.client import Client, RemoteStudy

logger = logging.getLogger(__name__)

StudyId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of a study; its first or last digits will do.")
]

PATIENCE = 600.0
"""Seconds for which a command that stays for the end waits for a server that went away."""


def connected(patience: float = 60.0) -> Client:
    """A client of the server at BITFRONT_URL, with the key of BITFRONT_API_KEY."""
    need_extra()
    from bitfront.client import URL, Client

    url, key = os.environ.get("BITFRONT_URL") or URL, os.environ.get("BITFRONT_API_KEY")
    return Client(url, key or None, patience, _Once())


def need_extra() -> None:
    """Refuse where what the service needs is not installed.

    Raises:
        InvalidArgument: says how to install it.
    """
    missing = [
        name
        for name in ("httpx2", "fastapi", "sqlalchemy", "cryptography")
        if find_spec(name) is None
    ]
    if missing:
        raise InvalidArgument(
            f"The service needs {', '.join(missing)}: pip install 'bitfront[service]'."
        )


class _Once:
    """Says the same thing once in a row."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, message: str) -> None:
        if message != self._last:
            logger.warning("%s", message)
        self._last = message


def line(study: RemoteStudy) -> str:
    """Where a study stands, in a line."""
    steps = f" {study.done}/{study.total}" if study.total else ""
    stage = "" if study.is_over else f"  {study.stage}{steps}"
    return f"{study.id}  {study.state}{stage}"


def page(client: Client, study_id: str) -> str:
    """Address of a study's page."""
    return f"{client.url}/ui/studies/{study_id}"
