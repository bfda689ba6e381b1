"""Events of a study as they happen."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from bitfront.api.openapi import problems
from bitfront.api.routes.studies import Owned
from bitfront.api.schemas import MAX_INT
from bitfront.api.security import is_still_known
from bitfront.api.site import Here

router = APIRouter(tags=["events"])


_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


@router.get(
    "/v1/studies/{study_id}/events",
    operation_id="watch_events",
    summary="Watch a study",
    response_class=EventStream,
    responses={
        200: {"content": {"text/event-stream": {"schema": _EVENT}}},
        204: {"description": "The study is over and all was sent: do not come again."},
        **problems(404),
    },
)
async def watch_events(
    request: Request,
    stored: Owned,
    here: Here,
    after: Annotated[int, Query(ge=0, le=MAX_INT, description="Only later events.")] = 0,
    last_event_id: Annotated[
        int, Header(ge=0, le=MAX_INT, description="Of a stream that broke off.")
    ] = 0,
) -> Response:
    """What happened, then what happens, until the study is over; a comment every 15 seconds.

    Each event has an `id`, its kind as `event`, and JSON as `data`. A stream that breaks off is
    taken up where it ended with `Last-Event-ID`, which browsers send by themselves. It ends when
    its key is not valid any more.
    """
    after = max(after, last_event_id)
    if after and stored.state.is_final:
        rest = await run_in_threadpool(here.store.activity.events, stored.id, after, 1)
        if not rest:
            return Response(status_code=204)
    may_read = partial(is_still_known, request, here)
    stream = here.feed.follow(stored.id, after, may_read)
    return EventStream(stream, headers={"X-Accel-Buffering": "no"})
