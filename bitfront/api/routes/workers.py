"""Workers and what they do, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from bitfront.api.answers import TaskAnswer, WorkerAnswer, WorkersAnswer
from bitfront.api.openapi import problems
from bitfront.api.records import moment, task_answer
from bitfront.api.security import admin
from bitfront.api.site import Here
from bitfront.store.records import TaskState

router = APIRouter(tags=["workers"])


@router.get(
    "/v1/workers",
    operation_id="list_workers",
    summary="List workers and running tasks",
    dependencies=[Depends(admin)],
    responses=problems(),
)
def list_workers(
    here: Here,
    within: Annotated[
        int, Query(ge=1, le=604_800, description="Heard of within so many seconds.")
    ] = 3_600,
) -> WorkersAnswer:
    """Who works on what, until when its lease holds, and at which attempt."""
    tasks: dict[str, list[TaskAnswer]] = {}
    for task in here.store.activity.tasks(states=[TaskState.RUNNING]):
        tasks.setdefault(task.worker or "", []).append(task_answer(task))
    items = [
        WorkerAnswer(
            name=worker.name,
            queue=worker.queue,
            transport=worker.transport,
            version=worker.version,
            started_at=moment(worker.started_at),
            seen_at=moment(worker.seen_at),
            tasks=tasks.pop(worker.name, []),
        )
        for worker in here.store.activity.workers(within)
    ]
    adrift = [task for held in tasks.values() for task in held]
    return WorkersAnswer(items=items, adrift=adrift)
