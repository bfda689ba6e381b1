"""Workers, what they hold and for how long, and what was set aside."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from bitfront.api.security import admin
from bitfront.api.site import Here
from bitfront.api.ui.page import Viewer, page
from bitfront.store.queue import MAX_ATTEMPTS
from bitfront.store.records import TaskState

router = APIRouter()
N_FAILED = 50
_SECONDS = 3600.0


@router.get("/workers", dependencies=[Depends(admin)])
def show_workers(request: Request, _viewer: Viewer, here: Here) -> Response:
    """Who works on what."""
    activity = here.store.activity
    running = activity.tasks(states=[TaskState.RUNNING])
    failed = activity.tasks(states=[TaskState.FAIL])
    held: dict[str, list[object]] = {}
    for task in running:
        held.setdefault(task.worker or "", []).append(task)
    workers = activity.workers(_SECONDS)
    names = {worker.name for worker in workers}
    return page(
        request,
        "workers.html",
        now=here.store.db.time(),
        workers=workers,
        held=held,
        orphans=[task for task in running if task.worker not in names],
        waiting=sorted(
            (queue, stage, n)
            for (queue, stage, state), n in activity.n_tasks().items()
            if state == TaskState.WAITING
        ),
        failed=failed[::-1][:N_FAILED],
        n_failed=len(failed),
        n_stale=activity.n_stale(),
        max_attempts=MAX_ATTEMPTS,
    )
