"""What a study would take, said before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, Depends

from bitfront import formats
from bitfront.api import caches, weights
from bitfront.api.answers import EstimateAnswer, ModelEstimate
from bitfront.api.openapi import problems
from bitfront.api.pace import most_measured
from bitfront.api.schemas import EXAMPLE, EXAMPLE_IMAGES, StudyBody
from bitfront.api.security import reader
from bitfront.api.site import Here
from bitfront.api.sources import Sources
from bitfront.api.weights import WeightHeaders
from bitfront.costs.roofline import DEVICES
from bitfront.experts import Grouping
from bitfront.seeing import IMAGE_TEXT, IMAGES, kind_of, n_classes, n_patches, read_config
from bitfront.study import Study, TextSource

router = APIRouter(tags=["estimate"])


@router.post(
    "/v1/estimate",
    operation_id="estimate_study",
    summary="Estimate a study before it runs",
    dependencies=[Depends(reader)],
    responses=problems(400, 413, 415),
)
def estimate_study(
    body: Annotated[StudyBody, Body(examples=[EXAMPLE, EXAMPLE_IMAGES])], here: Here
) -> EstimateAnswer:
    """Measurements and tokens of any study; sizes and time where the model is a local folder."""
    study = body.study(Sources(here.settings))
    folder = Path(study.model)
    found = weights.read(folder) if folder.is_absolute() and folder.is_dir() else None
    lengths = {text: _length(text) for text in study.texts.values()}
    n_tokens = _measured_tokens(study, lengths)
    sees = kind_of(study.calibration.source) == IMAGES
    return EstimateAnswer(
        n_measurements=most_measured(study),
        n_tokens=n_tokens,
        n_estimator_tokens=study.calibration.n_sequences * lengths[study.calibration],
        unit="images" if sees else "tokens",
        model=None if found is None else _of_model(found, folder, study, sum(n_tokens.values())),
    )


def _measured_tokens(study: Study, lengths: Mapping[TextSource, int]) -> dict[str, int]:
    texts = [(study.calibration, study.evaluation)]
    if study.second is not None:
        texts.append((study.second.calibration, study.second.evaluation))
    seen = sum(lengths[search] for search, _ in texts) * study.n_search_sequences
    final = sum(each.n_sequences * lengths[each] for _, each in texts)
    n = most_measured(study)
    return {"calibration": n["calibration"] * seen, "evaluation": n["evaluation"] * final}


def _length(text: TextSource) -> int:
    """Tokens of one sample, of image-text as the file says; 1 for an image."""
    kind = kind_of(text.source)
    if kind == IMAGE_TEXT:
        return weights.sample_length(Path(text.source))
    return 1 if kind == IMAGES else text.sequence_length


def _of_model(found: WeightHeaders, folder: Path, study: Study, n_tokens: int) -> ModelEstimate:
    config = read_config(folder)
    sees = kind_of(study.calibration.source) == IMAGES
    with_experts = Grouping.parse(study.experts).kind != "none"
    layers = found.layers(with_experts, n_classes(config) if sees else 0)
    profile, menu = study.deployment, [formats.named(name) for name in study.formats]
    shapes = {name: each.shape for name, each in layers.items()}
    refused = profile.refused(shapes, menu) if profile else frozenset()
    bank: dict[str, int] = {}
    for format in menu:
        held = (x for name, x in layers.items() if (name, format.name) not in refused)
        size = sum(x.n * format.nbytes(x.shape) for x in held if format.fits(x.shape))
        stored = format.weight_format.name  # pairs that share it are stored once
        bank[stored] = max(size, bank.get(stored, 0))
    n_positions = n_patches(config) if sees else 1
    flops = 2 * found.n_parameters * n_tokens * n_positions if n_positions else None
    cache = study.kv_cache
    return ModelEstimate(
        n_parameters=found.n_parameters,
        nbytes=found.nbytes,
        n_layers=sum(x.n for x in layers.values()),
        n_layer_parameters=sum(x.n * x.shape[0] * x.shape[1] for x in layers.values()),
        bank_bytes=bank,
        cache_bytes=None if cache is None else caches.nbytes(folder, cache),
        flops=flops,
        seconds_at_least={}
        if flops is None
        else {device: flops / rate for device, (_, rate) in DEVICES.items()},
    )
