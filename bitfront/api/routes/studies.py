"""Studies: submitted, listed, read, cancelled, resumed, extended, deleted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response
from starlette.concurrency import run_in_threadpool

from bitfront.api.answers import Page, StudyAnswer
from bitfront.api.openapi import problems, to_study
from bitfront.api.pace import seconds_left
from bitfront.api.pages import PageSize, PageToken, cut, place
from bitfront.api.records import study_answer
from bitfront.api.schemas import EXAMPLE, EXAMPLE_IMAGES, ExtendBody, StudyBody
from bitfront.api.security import Caller, Reader, Writer
from bitfront.api.site import Here, Site
from bitfront.api.sources import Sources
from bitfront.errors import InvalidArgument
from bitfront.store.records import StoredStudy, StudyState

router = APIRouter(tags=["studies"])

ID = "[0-9a-f]{32}"
StudyPath = Annotated[str, Path(pattern=f"^{ID}$", description="Id of a study.")]
IdempotencyKey = Annotated[
    str,
    Header(
        pattern="^[!-~]+$",
        max_length=200,
        description="New for each study; the same again gives the study that was made, or "
        "a 409 while its first request is being answered.",
        examples=["7f2c1d0e-5b1f-4a55-9d0b-0b6a4a8f6f11"],
    ),
]


def owned(study_id: StudyPath, known: Reader, here: Here) -> StoredStudy:
    """The study of an address, if the caller may see it.

    Raises:
        NotFound: there is none, or it is another owner's.
    """
    return here.store.studies.get(study_id, known.sees)


Owned = Annotated[StoredStudy, Depends(owned)]

_ON = to_study(
    "get_study", "list_trials", "get_front", "list_tables", "get_report", "watch_events",
    "list_checkpoints", "create_checkpoint", "cancel_study", "resume_study", "extend_study",
    "delete_study",
)  # fmt: skip
_IN_FLIGHT: dict[int | str, dict[str, Any]] = {
    status: {**answer, "description": "A request with this Idempotency-Key is being answered."}
    for status, answer in problems(409).items()
    if status == 409
}
_CHANGED: dict[int | str, dict[str, Any]] = {
    202: {"links": to_study("get_study", "watch_events", "cancel_study", "get_front")}
}


@router.post(
    "/v1/studies",
    operation_id="create_study",
    summary="Submit a study",
    status_code=202,
    responses={202: {"links": _ON}, **problems(400, 413, 415), **_IN_FLIGHT},
)
async def create_study(
    body: Annotated[StudyBody, Body(examples=[EXAMPLE, EXAMPLE_IMAGES])],
    key: Annotated[IdempotencyKey, Header(alias="Idempotency-Key")],
    known: Writer,
    here: Here,
    response: Response,
) -> StudyAnswer:
    """Store a study and queue its first task; workers do the rest."""
    answer, is_new = await run_in_threadpool(_created, body, key, known, here)
    response.headers["Location"] = answer.links["self"]
    response.headers["Idempotency-Replayed"] = "false" if is_new else "true"
    return answer


def _created(body: StudyBody, key: str, known: Caller, here: Site) -> tuple[StudyAnswer, bool]:
    study = body.study(Sources(here.settings))
    device = here.settings.device if study.device == "auto" else study.device
    # Where it is left open, the worker that prepares it says where the rest runs.
    queue = "gpu" if device == "cuda" else "cpu"
    stored, is_new = here.store.studies.create(
        study, known.owner, queue, key=key, quota=known.quota
    )
    return study_answer(stored), is_new


@router.get(
    "/v1/studies",
    operation_id="list_studies",
    summary="List studies, newest first",
    responses=problems(),
)
def list_studies(
    known: Reader,
    here: Here,
    state: Annotated[StudyState | None, Query(description="Only those in this state.")] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[StudyAnswer]:
    """Studies of the caller, or of everyone for an administrator."""
    before = place(page_token, ID) if page_token else None
    found = here.store.studies.page(known.sees, state, before, page_size + 1)
    items, following = cut(found, page_size, lambda stored: stored.id)
    return Page(items=[study_answer(stored) for stored in items], next_page_token=following)


@router.get(
    "/v1/studies/{study_id}",
    operation_id="get_study",
    summary="Read a study",
    responses={200: {"links": _ON}, **problems(404)},
)
async def get_study(study_id: StudyPath, known: Reader, here: Here) -> StudyAnswer:
    """Where a study stands, and how long it will still take."""

    def read() -> StudyAnswer:
        stored = here.store.studies.get(study_id, known.sees)
        return study_answer(stored, seconds_left(here.store, stored))

    return await run_in_threadpool(read)


@router.post(
    "/v1/studies/{study_id}/cancel",
    operation_id="cancel_study",
    summary="Cancel a study",
    status_code=202,
    responses={**_CHANGED, **problems(404, 409)},
)
def cancel_study(study_id: StudyPath, known: Writer, here: Here) -> StudyAnswer:
    """Drop what waits and have what runs given up; what was measured stays."""
    return study_answer(here.store.studies.cancel(study_id, known.sees))


@router.post(
    "/v1/studies/{study_id}/resume",
    operation_id="resume_study",
    summary="Resume a study",
    status_code=202,
    responses={**_CHANGED, **problems(404, 409)},
)
def resume_study(study_id: StudyPath, known: Writer, here: Here) -> StudyAnswer:
    """Go on with a study that was cancelled or failed."""
    return study_answer(here.store.studies.resume(study_id, known.sees, known.quota))


@router.post(
    "/v1/studies/{study_id}/extend",
    operation_id="extend_study",
    summary="Give a study more trials or time",
    status_code=202,
    responses={**_CHANGED, **problems(400, 404, 409, 413, 415)},
)
def extend_study(
    study_id: StudyPath,
    body: Annotated[ExtendBody, Body(examples=[{"n_trials": 128}])],
    known: Writer,
    here: Here,
) -> StudyAnswer:
    """Raise the number of trials or the minutes; a study that is over goes on."""
    if (body.n_trials or 0) > here.settings.max_trials:
        raise InvalidArgument(
            f"n_trials is {body.n_trials:,}: this installation takes at most "
            f"{here.settings.max_trials:,}."
        )
    return study_answer(
        here.store.studies.extend(
            study_id, body.n_trials, body.max_minutes, known.sees, known.quota
        )
    )


@router.delete(
    "/v1/studies/{study_id}",
    operation_id="delete_study",
    summary="Delete a study that is over",
    status_code=204,
    responses=problems(404, 409),
)
def delete_study(study_id: StudyPath, known: Writer, here: Here) -> None:
    """Remove a study with its trials, files and checkpoints."""
    here.store.studies.delete(study_id, known.sees)
