"""Layer tables of a study: sensitivities and slopes."""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Response

from bitfront.api.answers import Page, TableAnswer, TableName
from bitfront.api.openapi import problems
from bitfront.api.records import study_links
from bitfront.api.routes.studies import Owned
from bitfront.api.site import Here, Site
from bitfront.errors import MismatchedArtifact, NotFound
from bitfront.space import SearchSpace

router = APIRouter(tags=["tables"])

_FOLDER, _SUFFIX = "tables/", ".npz"
_FIRST = {
    "get_table": {
        "operationId": "get_table",
        "parameters": {
            "study_id": "$request.path.study_id",
            "name": "$response.body#/items/0/name",
        },
    }
}


@router.get(
    "/v1/studies/{study_id}/tables",
    operation_id="list_tables",
    summary="List layer tables",
    responses={200: {"links": _FIRST}, **problems(404)},
)
def list_tables(stored: Owned, here: Here) -> Page[TableName]:
    """Names of the tables that were made so far."""
    found = here.store.files.of(stored.id, _FOLDER)
    names = [n.removeprefix(_FOLDER).removesuffix(_SUFFIX) for n in found if n.endswith(_SUFFIX)]
    root = study_links(stored.id)["tables"]
    items = [TableName(name=name, links={"self": f"{root}/{name}"}) for name in names]
    return Page(items=items, next_page_token=None)


@router.get(
    "/v1/studies/{study_id}/tables/{name}",
    operation_id="get_table",
    summary="Read a layer table",
    response_model=TableAnswer,
    responses=problems(404),
)
def get_table(
    stored: Owned,
    name: Annotated[str, Path(pattern="^[A-Za-z0-9_.-]{1,200}$", description="Of a table.")],
    here: Here,
) -> Response:
    """One number for every layer in every format; null where the format does not fit."""
    digest = here.store.files.of(stored.id, f"{_FOLDER}{name}{_SUFFIX}").get(
        f"{_FOLDER}{name}{_SUFFIX}"
    )
    space = here.store.trials.space(stored.id)
    if digest is None or space is None:
        raise NotFound(f"Study {stored.id} has no table {name!r}.")
    table = {"study_id": stored.id, "name": name, **_read(here, digest, space)}
    # A table may have half a million rows: no model is made of each.
    return Response(json.dumps(table), media_type="application/json")


def _read(here: Site, digest: str, space: SearchSpace) -> dict[str, Any]:
    try:
        with (
            here.artifacts.open(digest) as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            values = np.asarray(stored["values"], dtype=np.float64)
            words = {key: str(stored[key]) for key in ("quantity", "source", "reduction", "note")}
    # What numpy raises on a damaged archive is not documented.
    except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
        raise MismatchedArtifact(f"Table {digest} is damaged: {error}.") from error
    if values.shape != space.allowed.shape:
        raise MismatchedArtifact(f"Table {digest} is of another space: {values.shape}.")
    shown = np.where(space.allowed & np.isfinite(values), values, np.nan)
    names = [format.name for format in space.formats]
    rows = [
        {"layer": layer.name, "format": name, "value": None if value != value else value}
        for layer, row in zip(space.layers, shown.tolist(), strict=True)
        for name, value in zip(names, row, strict=True)
    ]
    return {**words, "rows": rows}
