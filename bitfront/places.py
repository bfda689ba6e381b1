"""Where the files of a study are, in whole paths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bitfront.models.offset import whole_place
from bitfront.plugins import Choice
from bitfront.study import Study, TextSource


def located(study: Study) -> Study:
    """The study with whole paths of local files, so that any directory finds them.

    Those are the model, its base, the texts, the items, and the tables of costs.
    """
    return replace(
        study.with_texts(lambda _, text: _placed(text)),
        model=whole_place(study.model),
        base=whole_place(study.base) if study.base is not None else None,
        costs=tuple(map(_with_whole_path, study.costs)),
        items=None if study.items is None else str(Path(study.items).resolve()),
    )


def _placed(text: TextSource) -> TextSource:
    path = Path(text.source)
    return replace(text, source=str(path.resolve())) if path.exists() else text


def _with_whole_path(cost: Choice) -> Choice:
    table = cost.params.get("table")
    if not table:
        return cost
    return replace(cost, params={**cost.params, "table": str(Path(str(table)).resolve())})
