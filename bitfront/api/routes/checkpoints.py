"""Checkpoints: measured points written out, their files, their manifests."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Request, Response

from bitfront.api import manifests, signing
from bitfront.api.answers import (
    CheckpointAnswer,
    CheckpointDetail,
    CheckpointFile,
    ManifestAnswer,
    ManifestKey,
    Page,
)
from bitfront.api.downloads import sent
from bitfront.api.openapi import problems
from bitfront.api.records import checkpoint_answer
from bitfront.api.routes.studies import Owned, StudyPath
from bitfront.api.schemas import MAX_INT, CheckpointBody
from bitfront.api.security import Writer, reader
from bitfront.api.site import Here, Site
from bitfront.budget import Budget
from bitfront.errors import Conflict, InvalidArgument, NotFound
from bitfront.signatures import ALGORITHM, key_id
from bitfront.store.records import Checkpoint, StoredStudy, TaskState

router = APIRouter(tags=["checkpoints"])

Number = Annotated[int, Path(ge=0, le=MAX_INT, description="Number of a checkpoint.")]
_ROOT = "/v1/studies/{study_id}/checkpoints"

_EXAMPLES = [{"at": "4.25bpw"}, {"at": "60MB,12ms@b1c2048"}, {"trial": 0}]


def _links(number: str) -> dict[str, Any]:
    place = {"study_id": "$request.path.study_id", "number": number}
    return {
        name: {"operationId": name, "parameters": place}
        for name in ("get_checkpoint", "get_manifest")
    }


@router.post(
    _ROOT,
    operation_id="create_checkpoint",
    summary="Have a point written as a checkpoint",
    status_code=202,
    responses={
        202: {"links": _links("$response.body#/number")},
        **problems(400, 404, 409, 413, 415),
    },
)
def create_checkpoint(
    study_id: StudyPath,
    body: Annotated[CheckpointBody, Body(examples=_EXAMPLES)],
    known: Writer,
    here: Here,
    response: Response,
) -> CheckpointAnswer:
    """Queue the writing of a measured point; asked twice, it is written once."""
    stored = here.store.studies.get(study_id, known.sees)
    exporter = body.exporter_text()
    trial = _trial(here, stored, body)
    made, _ = here.store.checkpoints.create(study_id, trial, exporter, known.sees, known.quota)
    answer = checkpoint_answer(made)
    response.headers["Location"] = answer.links["self"]
    return answer


def _trial(here: Site, stored: StoredStudy, body: CheckpointBody) -> int:
    if (body.trial is None) == (body.at is None):
        raise InvalidArgument("Give either the number of a trial, or at, a budget such as 4bpw.")
    if body.trial is not None:
        return body.trial
    bounds = Budget.parse(str(body.at)).bounds()
    # Until finalists are measured, the front of the search is what there is.
    front = here.store.trials.front(stored.id, "evaluation")
    if not front.trials:
        front = here.store.trials.front(stored.id, "calibration")
    return front.best(front.goal, **bounds).number


@router.get(
    _ROOT,
    operation_id="list_checkpoints",
    summary="List checkpoints",
    responses={200: {"links": _links("$response.body#/items/0/number")}, **problems(404)},
)
def list_checkpoints(stored: Owned, here: Here) -> Page[CheckpointAnswer]:
    """Checkpoints in the order they were asked for."""
    found = here.store.checkpoints.of(stored.id)
    return Page(items=[checkpoint_answer(each) for each in found], next_page_token=None)


def _checkpoint(stored: Owned, number: Number, here: Here) -> Checkpoint:
    for checkpoint in here.store.checkpoints.of(stored.id):
        if checkpoint.number == number:
            return checkpoint
    raise NotFound(f"Study {stored.id} has no checkpoint {number}.")


@router.get(
    f"{_ROOT}/{{number}}",
    operation_id="get_checkpoint",
    summary="Read a checkpoint",
    responses={200: {"links": _links("$request.path.number")}, **problems(404)},
)
def get_checkpoint(stored: Owned, number: Number, here: Here) -> CheckpointDetail:
    """Where a checkpoint stands, and its files once it is written."""
    checkpoint = _checkpoint(stored, number, here)
    answer = checkpoint_answer(checkpoint)
    root = f"{answer.links['self']}/files"
    found = [
        CheckpointFile(
            name=name,
            sha256=digest,
            size=here.artifacts.size(digest),
            links={"self": f"{root}/{name}"},
        )
        for name, digest in manifests.files(here, checkpoint).items()
    ]
    return CheckpointDetail(**answer.model_dump(), files=found)


@router.get(
    f"{_ROOT}/{{number}}/manifest",
    operation_id="get_manifest",
    summary="Read the signed manifest of a checkpoint",
    response_model=ManifestAnswer,
    responses=problems(404, 409),
)
def get_manifest(stored: Owned, number: Number, here: Here) -> Response:
    """Study, point, measured values and files, signed with Ed25519 (RFC 8032).

    The signature is over the manifest without its field `signature`, as JSON with sorted keys, no
    spaces, and non-ASCII escaped. `get_manifest_key` has the public key, with which `bitfront
    check-manifest` checks one without the server.
    """
    checkpoint = _checkpoint(stored, number, here)
    if checkpoint.state is not TaskState.COMPLETE:
        raise Conflict(f"Checkpoint {number} is {checkpoint.state}: wait until it is written.")
    made = manifests.of_checkpoint(here, stored, checkpoint)
    signed = signing.signed(made, signing.private_key(here.settings.home))
    # As it was signed: a model would write a whole number of bytes as a float.
    return Response(json.dumps(signed), media_type="application/json")


@router.get(
    "/v1/manifests/key",
    operation_id="get_manifest_key",
    summary="Read the public key that manifests are signed with",
    dependencies=[Depends(reader)],
    responses=problems(),
)
def get_manifest_key(here: Here) -> ManifestKey:
    """Who has it can tell without this server whether it signed a manifest."""
    key = signing.public_key(signing.private_key(here.settings.home))
    return ManifestKey(algorithm=ALGORITHM, key_id=key_id(key), public_key=key.hex())


@router.get(
    f"{_ROOT}/{{number}}/files/{{path:path}}",
    operation_id="get_checkpoint_file",
    summary="Download a file of a checkpoint",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}},
        206: {"description": "The range that was asked for."},
        304: {"description": "As before."},
        **problems(404, 416),
    },
)
def get_checkpoint_file(
    stored: Owned,
    number: Number,
    path: Annotated[str, Path(max_length=500, description="Name of a file of the checkpoint.")],
    here: Here,
    request: Request,
) -> Response:
    """The bytes of a file, or a range of them."""
    # Looked up among the names that a worker stored, never on a disk.
    digest = manifests.files(here, _checkpoint(stored, number, here)).get(path)
    if digest is None:
        raise NotFound(f"Checkpoint {number} of study {stored.id} has no file {path[:200]!r}.")
    headers = {"Cache-Control": "private, no-cache"}
    return sent(request, here.artifacts, digest, "application/octet-stream", headers)
