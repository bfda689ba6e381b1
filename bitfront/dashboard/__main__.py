"""`python -m bitfront.dashboard [--rebuild]`: settings come from `BITFRONT_*`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from bitfront.dashboard.served import serve
from bitfront.errors import BitfrontError
from bitfront.logs import set_up_logs
from bitfront.settings import Settings


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m bitfront.dashboard")
    parser.add_argument("--rebuild", action="store_true", help="mirror every study anew first")
    arguments = parser.parse_args()
    set_up_logs()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        serve(Settings(), arguments.rebuild)
    except BitfrontError as error:
        logging.getLogger("bitfront.dashboard").error("stops: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
