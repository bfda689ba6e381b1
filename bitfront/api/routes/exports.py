"""The fronts of many studies as one archive."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from bitfront.api import manifests, media, signing
from bitfront.api.openapi import problems
from bitfront.api.routes.studies import ID
from bitfront.api.routes.trials import Text
from bitfront.api.security import Reader
from bitfront.api.site import Here
from bitfront.report.points import encoded_fronts

router = APIRouter(tags=["exports"])

MAX_STUDIES = 200
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that an archive can hold: the same data make the same bytes."""


@router.get(
    "/v1/exports",
    operation_id="export_fronts",
    summary="Export the fronts of many studies",
    response_class=Response,
    responses={
        200: {
            "description": "`fronts.parquet`, `STUDY/manifest.json` for each, `SHA256SUMS`.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "As before."},
        **problems(404),
    },
)
def export_fronts(
    study: Annotated[
        list[Annotated[str, Query(pattern=f"^{ID}$")]],
        Query(min_length=1, max_length=MAX_STUDIES, description="Ids, each as `study=ID`."),
    ],
    known: Reader,
    here: Here,
    request: Request,
    text: Annotated[Text, Query(description="Text of the measured values.")] = "evaluation",
) -> Response:
    """One Parquet file with a column `study_id`, and a signed manifest for each study."""
    stored = [here.store.studies.get(study_id, known.sees) for study_id in sorted(set(study))]
    fronts = {each.id: here.store.trials.front(each.id, text) for each in stored}
    key = signing.private_key(here.settings.home)
    entries = {"fronts.parquet": encoded_fronts(fronts)}
    for each in stored:
        made = signing.signed(manifests.of_front(each, fronts[each.id], text), key)
        entries[f"{each.id}/manifest.json"] = (json.dumps(made, indent=1) + "\n").encode()
    return media.answer(request, _archive(entries), "application/zip", "bitfront-fronts.zip")


def _archive(entries: dict[str, bytes]) -> bytes:
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {n}\n" for n, data in entries.items())
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**entries, "SHA256SUMS": sums.encode()}.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return sink.getvalue()
