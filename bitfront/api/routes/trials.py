"""Trials of a study: what was measured."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from bitfront.api.answers import Page, TrialAnswer, TrialSummary
from bitfront.api.openapi import problems
from bitfront.api.pages import PageSize, PageToken, cut, place
from bitfront.api.records import trial_answer, trial_summary
from bitfront.api.routes.studies import Owned
from bitfront.api.schemas import MAX_INT
from bitfront.api.site import Here
from bitfront.errors import InvalidArgument

router = APIRouter(tags=["trials"])

Text = Literal["calibration", "evaluation"]
TrialNumber = Annotated[int, Path(ge=0, le=MAX_INT, description="Number of a trial.")]

_FIRST = {
    "get_trial": {
        "operationId": "get_trial",
        "parameters": {
            "study_id": "$request.path.study_id",
            "number": "$response.body#/items/0/number",
        },
    }
}


@router.get(
    "/v1/studies/{study_id}/trials",
    operation_id="list_trials",
    summary="List trials, oldest first",
    responses={200: {"links": _FIRST}, **problems(404)},
)
def list_trials(
    stored: Owned,
    here: Here,
    text: Annotated[Text | None, Query(description="Only those on this text.")] = None,
    finished: Annotated[bool, Query(description="Only those measured or failed.")] = False,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[TrialSummary]:
    """Trials with their values; the formats of one are at its own address."""
    after = int(place(page_token, "[0-9]{1,10}")) if page_token else -1
    if after > MAX_INT:
        raise InvalidArgument("page_token is none of ours: give next_page_token of a page.")
    found = here.store.trials.of(stored.id, text, after, page_size + 1, finished)
    items, following = cut(found, page_size, lambda trial: trial.number)
    return Page(
        items=[trial_summary(stored.id, trial) for trial in items], next_page_token=following
    )


@router.get(
    "/v1/studies/{study_id}/trials/{number}",
    operation_id="get_trial",
    summary="Read a trial",
    responses=problems(404),
)
def get_trial(stored: Owned, number: TrialNumber, here: Here) -> TrialAnswer:
    """A trial with the format of each layer."""
    return trial_answer(stored.id, here.store.trials.get(stored.id, number))
