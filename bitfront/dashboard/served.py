"""The dashboard's process: the guarded application, and the mirror kept up beside it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import waitress

from bitfront.dashboard.access import Access
from bitfront.dashboard.guard import Guard
from bitfront.dashboard.sign_in import SignIn
from bitfront.errors import NotFound, StorageError
from bitfront.settings import Settings
from bitfront.store import Store

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from bitfront.mirror import Mirror

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Shown:
    """optuna-dashboard over a mirror, made anew once the mirror was lost.

    Both load only when someone looks, or there is a study to mirror: without them this process has
    a quarter of the memory.

    Args:
        store: what is mirrored.
        url: where to, as in `Mirror`.
    """

    store: Store
    url: str
    _mirror: Mirror | None = field(default=None, init=False)
    _app: WSGIApplication | None = field(default=None, init=False)
    _storage: BaseStorage | None = field(default=None, init=False)
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        import optuna_dashboard

        storage = self.mirror.storage
        if self._app is None or storage is not self._storage:
            self._app, self._storage = optuna_dashboard.wsgi(storage), storage
        return self._app(environ, start_response)

    @property
    def mirror(self) -> Mirror:
        """What is shown."""
        with self._loading:
            if self._mirror is None:
                from bitfront.mirror import Mirror

                self._mirror = Mirror(self.store, self.url)
            return self._mirror

    def update(self) -> None:
        """Mirror what finished since the last time, once there is something to mirror."""
        try:
            if self._mirror is not None or self.store.activity.n_studies():
                self.mirror.update()
        except StorageError as error:
            _log.warning("the Optuna mirror waits: %s", error)
        except Exception:
            _log.exception("the Optuna mirror cannot be loaded")

    def find(self, study_id: str) -> int:
        """Number of a study in the mirror, which its address has; it changes when it is made anew.

        Raises:
            NotFound: the study is not mirrored, or not yet.
        """
        try:
            return self.mirror.storage.get_study_id_from_name(study_id)
        except KeyError as error:
            raise NotFound(f"Study {study_id} is not in the mirror yet: wait a moment.") from error


@contextmanager
def kept_up(shown: Shown, seconds: float) -> Iterator[None]:
    """Update what is shown every few seconds inside a `with` block."""
    stopping = threading.Event()

    def keep() -> None:
        while not stopping.is_set():
            shown.update()
            stopping.wait(seconds)

    # A daemon: an update of thousands of trials is given up, and done again after a start.
    thread = threading.Thread(target=keep, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(2.0)


def serve(store: Store, settings: Settings, rebuild: bool = False) -> None:
    """Show the mirror until told to stop.

    Args:
        store: the study database, upgraded.
        settings: of the installation.
        rebuild: mirror everything anew first.

    Raises:
        StorageError: the address is taken.
        Conflict: `rebuild`, and another process writes the mirror.
    """
    shown, access = Shown(store, settings.optuna), Access(store)
    if rebuild:
        shown.mirror.rebuild()
    guard = Guard(shown, access, SignIn(access), shown.find)
    try:
        server = waitress.create_server(
            guard,
            host=settings.dashboard_host,
            port=settings.dashboard_port,
            ident=None,
            threads=4,
            connection_limit=200,
            channel_timeout=60,
            max_request_header_size=32 * 2**10,
            max_request_body_size=64 * 2**10,
        )
    except OSError as error:
        place = f"{settings.dashboard_host}:{settings.dashboard_port}"
        raise StorageError(f"The dashboard cannot listen at {place}: {error.strerror}.") from error
    _log.info("dashboard at http://%s:%s", settings.dashboard_host, server.effective_port)
    with kept_up(shown, settings.mirror_seconds):
        server.run()
