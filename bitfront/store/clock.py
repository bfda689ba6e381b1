"""The database's clock: no lease depends on a worker's own."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class _Now(FunctionElement[float]):
    type = sa.Float()
    inherit_cache = True


NOW = _Now()
"""Seconds since 1970 when a statement runs, not when its transaction began."""


@compiles(_Now, "sqlite")
def _on_sqlite(_element: _Now, _compiler: object, **_options: Any) -> str:
    # `unixepoch('subsec')` is NULL before SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Now, "postgresql")
def _on_postgresql(_element: _Now, _compiler: object, **_options: Any) -> str:
    # `now()` is the time at which the transaction began.
    return "extract(epoch from clock_timestamp())::float8"
