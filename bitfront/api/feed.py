"""Events of studies for any number of watchers, read once for all of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache

from starlette.concurrency import run_in_threadpool

from bitfront.errors import NotFound, StorageError
from bitfront.store import Store
from bitfront.store.records import StoredEvent

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
"""Longest silence of a stream, and time between looks at whether its reader may still read."""
_N_KEPT = 2_000
_N_READ = 500


@dataclass
class _Channel:
    """What the watchers of one study share.

    Args:
        first: they have all kept events after this one.
    """

    first: int
    kept: deque[StoredEvent] = field(default_factory=deque)
    read_at: float = 0.0
    is_over: bool = False
    n_watchers: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def last(self) -> int:
        """The newest event that was read."""
        return self.kept[-1].id if self.kept else self.first

    def add(self, events: list[StoredEvent]) -> None:
        """Keep new events, and no more than a few."""
        self.kept.extend(events)
        while len(self.kept) > _N_KEPT:
            self.first = self.kept.popleft().id


@dataclass
class Feed:
    """Server-sent events of the studies of a store.

    Whichever watcher finds that nobody has read for half a second reads for all: fifty of them ask
    the database no more often than one, and no task outlives them.

    Args:
        store: where events are.
    """

    store: Store
    _channels: dict[str, _Channel] = field(default_factory=dict)

    async def follow(
        self, study_id: str, after: int, may_read: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[str]:
        """Events after one, as text of the stream, until the study is over and all are sent.

        Args:
            study_id: whose events.
            after: number of the last event that is not sent.
            may_read: is asked at each heartbeat; the stream ends when it says no.
        """
        channel = self._channels.setdefault(study_id, _Channel(after))
        channel.n_watchers += 1
        try:
            async for text in self._followed(study_id, channel, after, may_read):
                yield text
        finally:
            channel.n_watchers -= 1
            if not channel.n_watchers:
                self._channels.pop(study_id, None)

    async def _followed(
        self,
        study_id: str,
        channel: _Channel,
        after: int,
        may_read: Callable[[], Awaitable[bool]],
    ) -> AsyncIterator[str]:
        sent_at = asked_at = time.monotonic()
        poll = POLL_SECONDS
        yield f"retry: {round(2000 * poll)}\n\n"
        while True:
            try:
                # Over is read before the events, so that none can come after.
                is_over, events = await self._after(study_id, channel, after)
                # Not before: of a database that is away, one watcher is enough to ask.
                if time.monotonic() - asked_at >= HEARTBEAT_SECONDS:
                    asked_at = time.monotonic()
                    if not await may_read():
                        return
            except StorageError:
                is_over, events = False, []
            except NotFound:
                return
            if events:
                # In one piece: fifty watchers would else be a thousand writes a second.
                yield "".join(map(written, events))
                after, sent_at = events[-1].id, time.monotonic()
                continue
            if is_over:
                return
            if time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
                yield ": still here\n\n"
                sent_at = time.monotonic()
            await asyncio.sleep(poll)

    async def _after(
        self, study_id: str, channel: _Channel, after: int
    ) -> tuple[bool, list[StoredEvent]]:
        if after < channel.first:
            events = await run_in_threadpool(self.store.activity.events, study_id, after, _N_READ)
            if not events:
                # The channel began with a number that no event has yet.
                channel.first, channel.kept = after, deque()
            return False, events
        async with channel.lock:
            if after >= channel.last and time.monotonic() - channel.read_at >= POLL_SECONDS:
                is_over, events = await run_in_threadpool(self._read, study_id, channel.last)
                channel.add(events)
                is_full = len(events) == _N_READ
                channel.is_over = is_over and not is_full
                channel.read_at = 0.0 if is_full else time.monotonic()
        return channel.is_over, [event for event in channel.kept if event.id > after]

    def _read(self, study_id: str, after: int) -> tuple[bool, list[StoredEvent]]:
        is_over = self.store.studies.get(study_id).state.is_final
        return is_over, self.store.activity.events(study_id, after, _N_READ)


@lru_cache(maxsize=_N_KEPT)
def written(event: StoredEvent) -> str:
    """An event as text of the stream: its body with its time, on one line."""
    body = {**json.loads(event.body), "at": event.at}
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(body)}\n\n"
