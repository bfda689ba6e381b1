"""The report of a stored study, made when it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

from bitfront.api.site import Site
from bitfront.errors import NotFound
from bitfront.experts import FILE as EXPERTS
from bitfront.experts import TokensSeen
from bitfront.pareto import ParetoFront, objectives
from bitfront.report.data import ReportData
from bitfront.report.page import html
from bitfront.report.study import latency_cost, never_quantized
from bitfront.store.records import StoredStudy
from bitfront.table import LayerTable
from bitfront.trial import TrialState


def report_page(here: Site, stored: StoredStudy) -> str:
    """One HTML page with front, bit map, sensitivities and what made them.

    Raises:
        NotFound: nothing is measured on the evaluation text yet.
    """
    study, space = stored.study, here.store.trials.space(stored.id)
    trials = here.store.trials.of(stored.id, finished=True)
    evaluations = tuple(t for t in trials if t.text == "evaluation")
    complete = tuple(t for t in evaluations if t.state is TrialState.COMPLETE)
    files = here.store.files.of(stored.id)
    table = files.get(f"tables/{study.estimator.name}.npz")
    if space is None or table is None or not complete:
        raise NotFound(
            f"Study {stored.id} has no report yet: it needs points measured on the evaluation text."
        )
    with here.artifacts.open(table) as file:
        loss = LayerTable.read(file, space)
    front = ParetoFront(complete, objectives(complete, study.budget.bounds()))
    data = ReportData(
        title=Path(study.model).name,
        space=space,
        front=front,
        evaluations=evaluations,
        calibrations=tuple(t for t in trials if t.text == "calibration"),
        loss=loss,
        budget=str(study.budget),
        limits=study.budget.limits(space),
        chosen=front.best(front.goal, **study.budget.bounds()),
        provenance=_words(here, files, "environment.json")
        | _words(here, files, "identity.json")
        | {"never quantized": never_quantized(space)},
        latency=latency_cost(study),
        experts=_experts(here, files),
    )
    return html(data)


def _experts(here: Site, files: dict[str, str]) -> TokensSeen:
    if EXPERTS not in files:
        return TokensSeen({})
    with here.artifacts.open(files[EXPERTS]) as file:
        return TokensSeen.from_json(file.read().decode())


def _words(here: Site, files: dict[str, str], name: str) -> dict[str, str]:
    if name not in files:
        return {}
    with here.artifacts.open(files[name]) as file:
        return {str(key): str(value) for key, value in json.load(file).items()}
