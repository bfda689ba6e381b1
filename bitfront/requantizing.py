"""A measured point quantized again for its own allocation, and measured again."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.banks import settled_bank
from bitfront.errors import InvalidArgument, NonFinite
from bitfront.inputs import Inputs, prepare, weights_identity
from bitfront.measurement import Measurement
from bitfront.models.bank import WeightBank
from bitfront.models.load import LoadedModel
from bitfront.models.patch import PatchedModel
from bitfront.models.tasks import CausalText, task_of
from bitfront.plugins import Choice
from bitfront.progress import Event, Progress
from bitfront.quantizers import QUANTIZERS
from bitfront.references import reference_of
from bitfront.results import Results
from bitfront.study import SETTLED_QUANTIZERS, Study
from bitfront.trial import Trial, TrialState


@dataclass(frozen=True, eq=False)
class Requantized:
    """A point with other weights in the same formats.

    Args:
        model: the unquantized model.
        bank: the new weights of the allocation.
        trial: the point with the values of these weights.
        identity: that of the study, with their quantizer and their digest.
    """

    model: LoadedModel
    bank: WeightBank
    trial: Trial
    identity: dict[str, str]


def settled(quantizer: str, study: Study) -> Choice:
    """A quantizer that a point of a study may be quantized again by.

    Raises:
        InvalidArgument: a search quantizes by it itself, or the study is of a difference.
        UnknownPlugin: no quantizer of that name.
    """
    choice = Choice.parse(quantizer)
    QUANTIZERS.build(choice.name, choice.params)
    if choice.name not in SETTLED_QUANTIZERS:
        raise InvalidArgument(
            f"Quantizer {choice.name!r} needs no settled formats: search with it. A point is "
            f"quantized again by {', '.join(SETTLED_QUANTIZERS)} only."
        )
    if study.base is not None:
        raise InvalidArgument(
            f"This point has quantized differences from {study.base}, and {choice.name} quantizes "
            "weights only: export it as it was measured."
        )
    return choice


def requantized(
    study: Study, trial: Trial, quantizer: Choice, results: Results, progress: Progress
) -> Requantized:
    """Quantize a point again, layer by layer behind its quantized layers, and measure it.

    Args:
        study: a finished study, in the dtype that was measured.
        trial: a point of it; it is measured on the same text.
        quantizer: of `settled`.
        results: its folder, which gets the weights.
        progress: called as the work goes on.

    Raises:
        InvalidModel, InvalidText: the model or a text is not there.
        InvalidArgument: no language model.
        MismatchedArtifact: model or texts are not what was measured.
        NonFinite: the outputs of the new weights overflow.
        StorageError: the weights could not be written.
    """
    inputs = prepare(study, progress)
    if not isinstance(task_of(inputs.model.module), CausalText):
        raise InvalidArgument(
            f"Only language models are quantized again by {quantizer.name}, and {study.model} is "
            "none: export the point as it was measured."
        )
    with results.locked():
        results.check(inputs.identity(study))
        bank = settled_bank(
            quantizer,
            inputs.model,
            inputs.space,
            trial.allocation,
            inputs.estimation,
            results.directory / "bank",
            progress,
        )
        results.save_bank_entries(bank.entries, bank.digest)
        again = _measured(study, trial, inputs, bank, results, progress)
    identity = weights_identity(study, inputs.model, inputs.space, quantizer)
    whole = results.identity | identity | {"quantized weights": bank.digest}
    return Requantized(inputs.model, bank, again, whole)


def _measured(
    study: Study,
    trial: Trial,
    inputs: Inputs,
    bank: WeightBank,
    results: Results,
    progress: Progress,
) -> Trial:
    """The point with what its new weights are measured as."""
    references = {
        text: reference_of(study, results, inputs, text, progress)
        for text in inputs.measured
        if text in (trial.text, f"second_{trial.text}")
    }
    progress(Event("evaluate", 0, 1))
    with PatchedModel(inputs.model.module, bank, as_stored=True) as patched:
        measurement = Measurement(patched, inputs.costs, references, questions=inputs.questions)
        again = measurement.trial(
            trial.number, trial.allocation, trial.text, trial.origin, trial.target
        )
    if again.state is not TrialState.COMPLETE:
        raise NonFinite(f"Quantized again, this point cannot be measured: {again.error}")
    progress(Event("evaluate", 1, 1, again))
    return again
