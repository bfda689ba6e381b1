"""The form that submits a study."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from fastapi import APIRouter, Request, Response

from bitfront import formats, runtimes
from bitfront.api import kinds
from bitfront.api.site import Here
from bitfront.api.ui.page import Viewer, page
from bitfront.budget import Budget
from bitfront.kv_cache import KVCache, can_hold
from bitfront.study import SETTLED_QUANTIZERS, Study, default_menu

router = APIRouter()

_CACHE_FORMATS = ("int2_g32", "int3_g32", "int4_g32", "int8_g32", "bf16")
"""Shown first; none is ticked, so that a study has a KV cache only where it is asked for."""
_EXPERTS = {
    "expert": "each expert has its own",
    "matrix": "each matrix of each expert has its own",
    "cluster:2": "2 clusters of alike experts in a block",
    "cluster:4": "4 clusters of alike experts in a block",
    "cluster:8": "8 clusters of alike experts in a block",
    "block": "all experts of a block have one",
    "none": "experts stay at 16 bits",
}
_TASKS = {
    "auto": ("as its folder says", {}),
    "text": ("text: next tokens", {}),
    "sentences": ("lines of a text: their embeddings", {"n": (64, 64, 512)}),
    "images": ("images: their classes", {"n": (64, 128, 512), "source": "", "sees": True}),
    "image-text": (
        "images with text: next tokens",
        {"n": (32, 32, 128), "source": "", "sees": True},
    ),
}
"""What the form says of each task, and what it fills in where one is chosen: numbers of samples
for calibration, search and evaluation, and that no text of the hub is a source."""


@router.get("/new")
def new_study(request: Request, known: Viewer, here: Here) -> Response:
    """Fields with the defaults of a study, and a key so that one form makes one study.

    Formats know which runtimes load them, and runtimes their own menu.
    """
    default = Study("org/name", Budget(4.25, "bpw"))
    families = _families(x for x in formats.catalogue() if x != "zero")  # stands with the base
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
        cache=KVCache(_CACHE_FORMATS),
        cache_families=_families(x for x, f in formats.catalogue().items() if can_hold(f)),
        experts=_EXPERTS,
        tasks=_TASKS,
        offset_menu=default_menu(None, "base")[0],
        searches=[choice.name for choice in default.searches],
        kinds={
            "quantizers": [x for x in kinds.names("quantizers") if x not in SETTLED_QUANTIZERS],
            **{kind: kinds.names(kind) for kind in ("estimators", "searches")},
        },
        settings=here.settings,
        may_write="write" in known.scopes,
    )


def _families(names: Iterable[str]) -> dict[str, list[str]]:
    """Formats of one kind whose names begin alike, so that variants are not among the plain."""
    found: dict[str, list[str]] = {}
    for name in names:
        format = formats.named(name)
        kind = f"{type(format).__name__} {name.partition('_')[0]}"
        found.setdefault("pairs" if format.input_format else kind, []).append(name)
    return found
