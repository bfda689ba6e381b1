"""The form that submits a study."""

from __future__ import annotations

import uuid

from fastapi import APIRouter, Request, Response

from bitfront import formats, runtimes
from bitfront.api import kinds
from bitfront.api.site import Here
from bitfront.api.ui.page import Viewer, page
from bitfront.budget import Budget
from bitfront.study import Study, default_menu

router = APIRouter()


@router.get("/new")
def new_study(request: Request, known: Viewer, here: Here) -> Response:
    """Fields with the defaults of a study, and a key so that one form makes one study.

    Formats know which runtimes load them, and runtimes their own menu.
    """
    default = Study("org/name", Budget(4.25, "bpw"))
    families: dict[str, list[str]] = {}
    for name, format in formats.catalogue().items():
        family = "pairs" if format.input_format else name.partition("_")[0]
        families.setdefault(family, []).append(name)
    profiles = {name: runtimes.named(name) for name in runtimes.names()}
    return page(
        request,
        "new.html",
        key=str(uuid.uuid4()),
        default=default,
        families=families,
        menus={name: default_menu(name)[0] for name in profiles},
        loaders={
            name: [runtime for runtime, profile in profiles.items() if profile.rule(name)]
            for name in formats.catalogue()
        },
        searches=[choice.name for choice in default.searches],
        kinds={kind: kinds.names(kind) for kind in ("quantizers", "estimators", "searches")},
        settings=here.settings,
        may_write="write" in known.scopes,
    )
