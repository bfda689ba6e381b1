"""PostgreSQL connections that wait for no server that is frozen."""

from __future__ import annotations

import math
import select
import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

T = TypeVar("T")


class Bounded(psycopg.Connection[Any]):
    """A connection that is given up when its server is silent for too long.

    A server that is stopped or swapped out holds its sockets open: no limit of the kernel, and
    none that the server would have to keep itself, ends the wait for it.
    """

    answer_seconds: float = math.inf

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Run steps that wait for the server.

        Raises:
            OperationalError: it is silent; the connection is closed.
        """
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, steps: PQGen[T]) -> PQGen[T]:
        end = time.monotonic() + self.answer_seconds
        try:
            awaited = next(steps)
            while True:
                ready = yield awaited
                if ready:
                    end = time.monotonic() + self.answer_seconds
                elif time.monotonic() > end:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(
                        f"the server does not answer within {self.answer_seconds:g} s"
                    )
                awaited = steps.send(ready)
        except StopIteration as last:
            result: T = last.value
            return result


def bound(pool: Engine, answer_seconds: float) -> None:
    """Have the connections of a pool wait so long at most, and replace those that were closed."""

    def connect(_dialect: object, _record: object, places: Any, options: Any) -> Bounded:
        made = Bounded.connect(*places, **options)
        made.answer_seconds = answer_seconds
        return made

    def check(connection: Bounded, record: Any, _proxy: object) -> None:
        # Costs a system call, where `pool_pre_ping` costs a round trip: a server that restarted has
        # said so on every connection, and between transactions nothing else comes.
        if record.info.get("was_used") and _can_be_read(connection):
            raise InvalidatePoolError
        record.info["was_used"] = True

    event.listen(pool, "do_connect", connect)
    event.listen(pool, "checkout", check)


def _can_be_read(connection: Bounded) -> bool:
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
