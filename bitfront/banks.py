"""The quantized weights of a study: made, found in its results folder, or made again."""

from __future__ import annotations

from pathlib import Path

import torch

from bitfront.allocation import Allocation
from bitfront.inputs import Inputs, calibration_samples
from bitfront.models.bank import WeightBank
from bitfront.models.fishers import FisherDiagonals
from bitfront.models.load import LoadedModel
from bitfront.models.shifted import ShiftedGrams
from bitfront.models.statistics import InputGrams, LayerStatistics, counts_relative
from bitfront.plugins import Choice
from bitfront.progress import Progress, counted, silent
from bitfront.quantizers import QUANTIZERS
from bitfront.quantizers.base import Quantizer
from bitfront.results import Results
from bitfront.space import SearchSpace
from bitfront.study import Study


def build_bank(
    study: Study, inputs: Inputs, directory: Path, progress: Progress = silent
) -> WeightBank:
    """Quantize every layer in every format, or find that done."""
    quantizer = QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
    grams = None
    if quantizer.needs_hessian:
        grams = _statistics(quantizer, inputs.model, inputs.space, inputs.estimation)
    return WeightBank.build(
        directory,
        inputs.model.module,
        inputs.space,
        quantizer,
        grams,
        counted(progress, "quantize"),
        base=inputs.model.base_module,
    )


def stored_bank(
    study: Study,
    model: LoadedModel,
    space: SearchSpace,
    allocation: Allocation,
    results: Results,
    progress: Progress = silent,
    again: str | None = None,
) -> WeightBank:
    """The quantized weights of one allocation, from the results folder and without any text.

    Args:
        study: names the quantizer.
        model: the unquantized model.
        space: its layers and the menu.
        allocation: the format of each.
        results: its folder.
        progress: called as the work goes on.
        again: digest of the weights of a point that was quantized again; `None` for those of the
            study.

    Raises:
        MismatchedArtifact: missing or damaged, and the quantizer would need the text; or
            not the weights that were measured.
    """
    directory = results.directory / "bank"
    if again is not None:
        bank = WeightBank(directory, space, results.bank_entries(again))
        bank.check(allocation)
        return bank
    quantizer = QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
    if quantizer.needs_hessian:
        bank = WeightBank(directory, space, results.bank_entries(), model.base_module)
    else:
        shown = counted(progress, "quantize")
        bank = WeightBank.build(
            directory,
            model.module,
            space,
            quantizer,
            progress=shown,
            used=allocation,
            base=model.base_module,
        )
    results.check({"quantized weights": bank.digest})
    if quantizer.needs_hessian:  # else `build` has just verified them
        bank.check(allocation)
    return bank


def settled_bank(
    choice: Choice,
    model: LoadedModel,
    space: SearchSpace,
    allocation: Allocation,
    blocks: torch.Tensor,
    directory: Path,
    progress: Progress = silent,
) -> WeightBank:
    """One allocation, each layer quantized behind the quantized layers before it.

    Args:
        choice: one of `SETTLED_QUANTIZERS`.
        model: the unquantized language model.
        space: its layers and the menu.
        allocation: the format of each.
        blocks: what the layers are fed, int64 `[n_sequences, sequence_length]`.
        directory: of the weights.
        progress: called as the work goes on.
    """
    quantizer = QUANTIZERS.build(choice.name, choice.params)
    grams = ShiftedGrams(model.module, blocks, space.of_weights, allocation, quantizer)
    shown = counted(progress, "quantize")
    return WeightBank.build(
        directory, model.module, space, quantizer, grams, shown, used=allocation
    )


def rebuilt_bank(
    study: Study,
    model: LoadedModel,
    space: SearchSpace,
    allocation: Allocation,
    directory: Path,
    progress: Progress = silent,
    again: Choice | None = None,
) -> WeightBank:
    """The quantized weights of one allocation without a results folder.

    Args:
        study: names the quantizer and the text.
        model: the unquantized model.
        space: its layers and the menu.
        allocation: the format of each.
        directory: of the weights.
        progress: called as the work goes on.
        again: what the point was quantized again by; `None` for the quantizer of the study.

    Raises:
        InvalidText: the quantizer needs the calibration text, and it cannot be read.
    """
    quantizer = QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
    grams = None
    if again is not None or quantizer.needs_hessian:
        samples = calibration_samples(study, model)[: study.calibration.n_sequences]
        if again is not None:
            return settled_bank(
                again, model, space, allocation, samples.inputs, directory, progress
            )
        grams = _statistics(quantizer, model, space, samples.inputs)
    shown = counted(progress, "quantize")
    return WeightBank.build(
        directory,
        model.module,
        space,
        quantizer,
        grams,
        shown,
        used=allocation,
        base=model.base_module,
    )


def _statistics(
    quantizer: Quantizer, model: LoadedModel, space: SearchSpace, blocks: torch.Tensor
) -> LayerStatistics:
    """What a quantizer wants to know of each layer."""
    if quantizer.needs_fisher:
        return FisherDiagonals(model.module, blocks, space.of_weights)
    columns = {x.name: x.shape[1] for x in space.of_weights.layers}
    relative = counts_relative(model.module, quantizer)
    return InputGrams(model.module, blocks, columns, relative=relative)
