"""Loading libraries of many objects, none of which is garbage, and leaving them as they are."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def uncollected() -> Iterator[None]:
    """Imports inside are not searched for garbage again and again, which takes a sixth of them.

    >>> with uncollected():
    ...     import math
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def leave(code: int) -> NoReturn:
    """End this process: what is registered for its end is done, what it wrote is written.

    Its libraries are not taken apart object by object, which takes half as long as to load them
    where torch is among them. Threads that still run are not waited for.

    Args:
        code: its exit code.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
