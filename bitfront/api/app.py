"""The application: routes, what stands before them, and the document that describes them."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI

from bitfront.api import openapi, problems
from bitfront.api.feed import Feed
from bitfront.api.heads import Heads
from bitfront.api.limits import RequestLimits
from bitfront.api.metrics import Counted, RequestCounts
from bitfront.api.recent import Recent
from bitfront.api.refusals import Refusals
from bitfront.api.routes import (
    checkpoints,
    estimates,
    events,
    exports,
    fronts,
    health,
    plugins,
    reports,
    studies,
    tables,
    trials,
    workers,
)
from bitfront.api.security import Audit, Protection
from bitfront.api.site import Site
from bitfront.api.ui.app import mount_ui
from bitfront.artifacts import Artifacts
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.version import __version__

_ROUTERS = (
    studies, trials, fronts, tables, reports, events, checkpoints, exports, estimates, plugins,
    workers, health,
)  # fmt: skip
_DESCRIPTION = """
Submit a search, watch it, and collect its front and checkpoints. Every error is a problem document
(RFC 9457). Keys go into `Authorization: Bearer KEY`; on a machine without keys none is needed.
"""


def create_app(store: Store, artifacts: Artifacts, settings: Settings) -> FastAPI:
    """The API over a store.

    Args:
        store: the study database, upgraded.
        artifacts: where the files of its studies are.
        settings: of the installation.
    """
    app = FastAPI(
        title="bitfront",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    site = Site(store, artifacts, settings, Feed(store), Refusals(), Recent())
    app.state.site = site
    app.state.counts = RequestCounts()
    for routes in _ROUTERS:
        app.include_router(routes.router)
    problems.answer_with_problems(app)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]
    mount_ui(app, site)
    # The last that is added sees a request first.
    app.add_middleware(Heads)
    app.add_middleware(Audit)
    app.add_middleware(RequestLimits)
    app.add_middleware(Protection)
    app.add_middleware(Counted, counts=app.state.counts)
    return app
