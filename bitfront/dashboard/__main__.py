"""`python -m bitfront.dashboard [--rebuild]`: settings come from `BITFRONT_*`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from bitfront.api.machine import check_host
from bitfront.errors import BitfrontError
from bitfront.loading import leave
from bitfront.logs import set_up_logs
from bitfront.settings import Settings
from bitfront.store import Store


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m bitfront.dashboard")
    parser.add_argument("--rebuild", action="store_true", help="mirror every study anew first")
    arguments = parser.parse_args()
    set_up_logs()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        run(arguments.rebuild)
    except BitfrontError as error:
        logging.getLogger("bitfront.dashboard").error("stops: %s", error)
        return 2
    return 0


def run(rebuild: bool) -> None:
    """Serve until an exception ends it; `rebuild` mirrors every study anew first.

    Raises:
        BitfrontError: it cannot serve here.
    """
    settings = Settings()
    store = Store(settings.database, settings.lease_seconds)
    store.db.wait(30.0)
    store.db.check_schema()
    check_host(settings.dashboard_host, store, "BITFRONT_DASHBOARD_HOST")
    # It takes seconds to import: what is refused is refused before.
    from bitfront.dashboard.served import serve

    serve(store, settings, rebuild)


if __name__ == "__main__":
    leave(main())
