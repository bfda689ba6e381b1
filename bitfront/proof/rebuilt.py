"""The quantized model of a manifest, made anew from the unquantized one: never from its files."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitfront.banks import rebuilt_bank, stored_bank
from bitfront.errors import InvalidText, MismatchedArtifact
from bitfront.inputs import load_searched, weights_identity
from bitfront.manifest import Manifest
from bitfront.models.bank import WeightBank
from bitfront.models.fixed import FixedTensors
from bitfront.models.layers import set_weight
from bitfront.models.load import LoadedModel
from bitfront.models.rounded_inputs import RoundedInputs
from bitfront.progress import Progress, silent
from bitfront.results import Results
from bitfront.study import Study


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """An unquantized model and the quantized weights of one allocation.

    Args:
        manifest: says which.
        model: unquantized, in the dtype that was measured.
        bank: the weights of the allocation.
    """

    manifest: Manifest
    model: LoadedModel
    bank: WeightBank

    @property
    def of_weights(self) -> dict[str, str]:
        """Format of each layer that has weights; an engine is not asked for a quantized cache."""
        chosen = self.manifest.trial.allocation.formats
        return {x: f for x, f in chosen.items() if not self.bank.space.is_cache(x)}

    def patched(self, float32_vectors: bool = False) -> nn.Module:
        """The quantized model in float32, on the CPU, all else rounded as a checkpoint stores it.

        The model is changed in place; inputs of layers are rounded as their formats say.

        Args:
            float32_vectors: whether norms and biases keep their values.
        """
        module = self.model.module.float().cpu()
        FixedTensors(module, self.bank.space, vectors=not float32_vectors).round()
        formats = self.of_weights
        for layer, format in formats.items():
            set_weight(module, layer, self.bank.weight(layer, format))
        RoundedInputs(module, self.bank).apply(formats)
        return module


@contextmanager
def rounded_activations(module: nn.Module, layers: Collection[str], block: int) -> Iterator[None]:
    """Inputs of linear layers rounded to 8 bits within the block, as an engine does it.

    One scale, the largest size over 127, in float16, per `block` columns (ggml's Q8_0).

    Args:
        module: a language model in float32.
        layers: names of those with quantized weights.
        block: columns that share a scale; 0 to round nothing.
    """
    language_model: Any = module
    head, weights = language_model.get_output_embeddings(), set[int]()
    rounded = [module.get_submodule(name) for name in layers] if block else []
    for layer in rounded:
        weights.add(id(layer.weight))
    if head is not None and id(head.weight) in weights:  # tied to an embedding
        rounded = [*{id(x): x for x in (*rounded, head)}.values()]

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x = inputs[0].reshape(*inputs[0].shape[:-1], -1, block)
        scale = x.abs().amax(dim=-1, keepdim=True) / 127
        codes = torch.nan_to_num(x / scale).round()
        return ((codes * scale.half().float()).flatten(-2), *inputs[1:])

    hooks = [x.register_forward_pre_hook(hook) for x in rounded if isinstance(x, nn.Linear)]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def study_of(manifest: Manifest, model: str | None, device: str | None = None) -> Study:
    """The study of a manifest on this machine, in the dtype that was measured.

    Args:
        manifest: of a checkpoint.
        model: where the model is now; `None` for where it was.
        device: another one than the study's.
    """
    study = manifest.study
    return replace(
        study,
        model=model or study.model,
        revision=None if model else study.revision,
        dtype=manifest.identity.get("dtype", study.dtype),
        device=device or study.device,
    )


@contextmanager
def rebuilt(
    manifest: Manifest,
    model: str | None = None,
    results: Path | None = None,
    progress: Progress = silent,
) -> Iterator[Rebuilt]:
    """Load the unquantized model and quantize it as the manifest says.

    Args:
        manifest: of a checkpoint.
        model: where the model is now; `None` for where it was.
        results: results folder of the study, whose quantized weights are taken; `None` to quantize
            anew, for which `gptq` reads the calibration text.
        progress: called as the work goes on.

    Raises:
        InvalidModel, InvalidText: the model or the text is not there.
        MismatchedArtifact: they, or the quantizer, are not what was measured.
    """
    study = study_of(manifest, model, "cpu")
    loaded, space = load_searched(study, progress)
    again = manifest.requantized
    _check(manifest, weights_identity(study, loaded, space, again))
    allocation = manifest.trial.allocation
    with tempfile.TemporaryDirectory(prefix="bitfront-") as made:
        if results is not None:
            digest = manifest.identity.get("quantized weights") if again else None
            bank = stored_bank(study, loaded, space, allocation, Results(results), progress, digest)
        else:
            try:
                bank = rebuilt_bank(study, loaded, space, allocation, Path(made), progress, again)
            except InvalidText as error:
                name = (again or study.quantizer).name
                raise InvalidText(
                    f"Quantizer {name!r} needs the calibration text: {error} Or "
                    "give the results folder of the search with --results."
                ) from error
        _check(manifest, {"quantized weights": bank.digest})
        yield Rebuilt(manifest, loaded, bank)


def _check(manifest: Manifest, identity: dict[str, str]) -> None:
    if lines := differences(manifest, identity):
        raise MismatchedArtifact(
            f"This is not what the checkpoint was made of: {' '.join(lines)} "
            "Give the model with --model, or the results folder with --results."
        )


def differences(manifest: Manifest, identity: dict[str, str]) -> tuple[str, ...]:
    """One line for each part of an identity that the manifest has otherwise."""
    was = manifest.identity
    return tuple(
        f"{key} was {_short(was.get(key))}, is {_short(now)}."
        for key, now in sorted(identity.items())
        if was.get(key) != now
    )


def _short(value: str | None) -> str:
    return "absent" if value is None else value if len(value) <= 40 else f"{value[:37]}..."
