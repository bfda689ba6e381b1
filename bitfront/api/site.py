"""What the routes of one application work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from bitfront.api.feed import Feed
from bitfront.api.recent import Recent
from bitfront.api.refusals import Refusals
from bitfront.artifacts import Artifacts
from bitfront.settings import Settings
from bitfront.store import Store


@dataclass(frozen=True)
class Site:
    """One application's parts.

    Args:
        store: studies and all that belongs to them.
        artifacts: bytes of their files.
        settings: of the installation.
        feed: events for watchers.
        refusals: who sent wrong keys lately.
        recent: what the table of keys said a moment ago.
    """

    store: Store
    artifacts: Artifacts
    settings: Settings
    feed: Feed
    refusals: Refusals
    recent: Recent


# Not a plain function: those are run in a thread.
async def site(connection: HTTPConnection) -> Site:
    """The parts of the application that got a request."""
    parts: Site = connection.app.state.site
    return parts


Here = Annotated[Site, Depends(site)]
"""The parts, as an argument of a route."""
