"""The loss table of a study: made, found in its results folder, or made block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from bitfront.experts import FILE as EXPERTS
from bitfront.experts import TokensSeen
from bitfront.inputs import Inputs
from bitfront.models.bank import WeightBank
from bitfront.models.experts import expert_modules, tokens_seen
from bitfront.models.tasks import task_of
from bitfront.progress import Event, Progress, counted
from bitfront.results import Results
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity._unseen import imputed
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.study import Study
from bitfront.table import LayerTable


def expert_tokens(inputs: Inputs, results: Results) -> TokensSeen:
    """Calibration tokens of each expert, counted once; of a model without experts nothing."""
    path = results.directory / EXPERTS
    if path.exists() or not expert_modules(inputs.model.module):
        return TokensSeen.load(path)
    seen = tokens_seen(inputs.model.module, inputs.estimation)
    seen.save(path)
    return seen


def tokens_of_estimator(
    estimator: Estimator, model: nn.Module, batches: torch.Tensor, seen: TokensSeen
) -> TokensSeen:
    """Tokens of each expert in what an estimator looks at; nothing where it needs no text.

    Args:
        estimator: may look at fewer sequences, or at text of its own.
        model: the unquantized model.
        batches: the calibration text of estimators.
        seen: tokens of each expert in all of it.
    """
    if estimator.needs == "weights" or not seen.counts:
        return TokensSeen({})
    text = estimator.looked_at(model, batches)
    return seen if torch.equal(text, batches) else tokens_seen(model, text)


def loss_table(
    study: Study,
    inputs: Inputs,
    bank: WeightBank,
    results: Results,
    seen: TokensSeen,
    progress: Progress,
    suffix: str = "",
) -> LayerTable:
    """The table of the study's estimator; experts that saw too few tokens have imputed scores.

    Args:
        study: names the estimator.
        inputs: model, space and text.
        bank: the quantized weights.
        results: where the table is kept.
        seen: tokens of each expert.
        progress: called as the work goes on.
        suffix: of the table's name in the folder, where it is of another text.
    """
    name, space = f"{study.estimator.name}{suffix}", inputs.space
    stored = results.load_table(name, space)
    if stored:
        return stored
    estimator = ESTIMATORS.build(study.estimator.name, study.estimator.params)
    estimate = partial(estimator.whole_table, inputs.model.module, inputs.estimation, bank=bank)

    def finish(table: LayerTable) -> LayerTable:
        if table.quantity == "kl":  # in the unit of what is searched by
            table = replace(table, quantity=task_of(inputs.model.module).loss_name)
        model, text = inputs.model.module, inputs.estimation
        by = tokens_of_estimator(estimator, model, text, seen)
        return imputed(table, by, model, bank)

    if estimator.by_block:
        return _table_by_block(name, space, estimate, finish, results, progress)
    table = finish(estimate(space=space, progress=counted(progress, "estimate")))
    results.save_table(name, table)
    return table


def _table_by_block(
    name: str,
    space: SearchSpace,
    estimate: Callable[..., LayerTable],
    finish: Callable[[LayerTable], LayerTable],
    results: Results,
    progress: Progress,
) -> LayerTable:
    """The table of an estimator that takes long: the rows of each block are stored when made."""
    values = np.zeros(space.allowed.shape)
    made: dict[str, LayerTable] = {}
    n_done = 0
    for block in sorted({layer.block for layer in space.layers}):
        rows = [row for row, layer in enumerate(space.layers) if layer.block == block]
        part = replace(space, layers=tuple(space.layers[row] for row in rows))
        key = f"{name}-block{block}"
        table = results.load_table(key, part)
        if table is None:
            show = partial(_share_done, progress, n_done, len(rows), len(space.layers))
            table = estimate(space=part, progress=show)
            results.save_table(key, table)
        made[key] = table
        values[rows] = table.values
        n_done += len(rows)
        progress(Event("estimate", n_done, len(space.layers)))
    whole = finish(replace(next(iter(made.values())), space=space, values=values))
    results.save_table(name, whole)
    for unneeded in made:
        results.remove_table(unneeded)
    return whole


def _share_done(
    progress: Progress, n_before: int, n_here: int, n_layers: int, done: int, total: int
) -> None:
    progress(Event("estimate", n_before + done * n_here // total, n_layers))
