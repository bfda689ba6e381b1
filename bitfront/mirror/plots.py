"""Plots in the page of a mirrored study: its front, and the formats of its best point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from optuna.study import Study as OptunaStudy
from optuna_dashboard import save_plotly_graph_object

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.pareto import ParetoFront
from bitfront.report.data import ReportData
from bitfront.report.maps import bit_map_figure
from bitfront.report.scatters import front_figure
from bitfront.space import SearchSpace
from bitfront.store import Store
from bitfront.store.records import FinishedTrial
from bitfront.study import Study
from bitfront.table import LayerTable
from bitfront.trial import Trial, loss_name, loss_of

MAX_CELLS, MAX_POINTS = 10_000, 500
"""Larger maps and fronts have no plot: Optuna stores one in rows of 2 kB, a commit each."""


def best_point(study: Study, points: list[FinishedTrial]) -> FinishedTrial:
    """The point of least KL within the budget; the smallest one where none is within."""
    bounds = study.budget.bounds()
    within = [p for p in points if all(p.values.get(q, np.inf) <= b for q, b in bounds.items())]
    if within:
        return min(within, key=lambda point: loss_of(point.values))
    return min(points, key=lambda point: point.values["bytes"])


def save_plots(
    store: Store,
    mirrored: OptunaStudy,
    study: Study,
    points: list[FinishedTrial],
    uniforms: list[FinishedTrial],
) -> None:
    """Put both plots into the page of a study.

    Args:
        store: where the allocations are.
        mirrored: the study in Optuna.
        study: the request.
        points: the front of one text, not empty.
        uniforms: its baselines on that text.
    """
    space = store.trials.space(mirrored.study_name)
    if space is None:
        return
    best = store.trials.get(mirrored.study_name, best_point(study, points).number)
    # Baselines are named by their formats; the other points show values only, and no allocation
    # of thousands of layers is read for them.
    uniform = {t.number: store.trials.get(mirrored.study_name, t.number) for t in uniforms}
    shown = [uniform.get(point.number) or _bare(point) for point in points]
    searched = [trial for trial in shown if trial.number not in uniform]
    data = _data(study, space, best, shown, [*uniform.values(), *searched])
    if len(points) <= MAX_POINTS:
        figure = front_figure(data)
        # The title stands above the axis at the top.
        named = f"Front on the {best.text} text"
        figure.update_layout(title_text=named, title_y=0.98, title_yanchor="top", margin_t=100)
        save_plotly_graph_object(mirrored, figure, graph_object_id="front")
    if sum(map(len, data.grid.cells)) <= MAX_CELLS:
        figure = bit_map_figure(replace(data, front=replace(data.front, trials=(best,))))
        named = f"Bits of trial {best.number}, the best point within {study.budget}"
        figure.update_layout(title_text=named, margin_t=60, height=max(figure.layout.height, 240))
        save_plotly_graph_object(mirrored, figure, graph_object_id="bit-map")


def _bare(trial: FinishedTrial) -> Trial:
    return Trial(trial.number, Allocation({}), trial.text, trial.origin, values=trial.values)


def _data(
    study: Study, space: SearchSpace, best: Trial, points: list[Trial], trials: list[Trial]
) -> ReportData:
    try:
        limits = study.budget.limits(space)
    except InvalidArgument:
        limits = {}
    # Neither plot shows a loss: the estimator's table stays in its file.
    loss = LayerTable(space, np.zeros((len(space.layers), len(space.formats))), "kl")
    front = ParetoFront(tuple(points), (loss_name(points[0].values), "bytes"))
    return ReportData(
        study.model,
        space,
        front,
        tuple(trials),
        (),
        loss,
        str(study.budget),
        limits,
        best,
        {},
    )
