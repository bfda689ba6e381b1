"""What several fine-tuned models of one base have alike: their mean offset, packed once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.export.base import check_target
from bitfront.export.packed import Packed
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.experts import separate_experts
from bitfront.models.layers import fixed_tensors, get_weight, search_space, set_weight
from bitfront.models.load import LoadedModel, load_model
from bitfront.models.offset import check_same_tensors, stored_bytes, with_base
from bitfront.progress import Event, Progress, silent
from bitfront.quantizers.rtn import Rtn
from bitfront.space import SearchSpace


def share_offset(
    sources: Sequence[str],
    base: str,
    directory: Path,
    format: str = "int4_g64",
    pinned: str | None = "int4_g64",
    device: str = "auto",
    progress: Progress = silent,
) -> int:
    """Write the mean difference of fine-tuned models from their base as a folder of offsets.

    A study of each model then takes the folder as its base: it gives bits to what is left of that
    model alone, in which the rounding error of the mean is included. With a few bits for the mean
    and two for the rest this is residual task vector quantization (Kim et al. 2025,
    arXiv:2503.06921), whose 3 and 2 bits for 8 tasks come to 19/8 bits a task. Tensors
    that no format touches (norms, biases) stay the base's.

    Args:
        sources: the fine-tuned models, two or more.
        base: what they were fine-tuned from.
        directory: of the folder.
        format: of the mean difference of each layer.
        pinned: of that of embedding and head; `None` leaves them as in the base.
        device: `"cpu"`, `"cuda"` or `"auto"`.
        progress: called as models are read.

    Returns:
        Bytes of its tensors.

    Raises:
        BitfrontError: as `load_model` and `with_base`; fewer than two models; a format that does
            not fit some layer; or the folder cannot be written.
    """
    if len(sources) < 2:
        raise InvalidArgument(f"Given {len(sources)} model: the mean offset needs at least 2.")
    for source in (*sources, base):
        check_target(directory, source)
    progress(Event("load", 0, len(sources)))
    # In float32: a mean of bfloat16 weights, rounded again, would be off by a share of itself.
    model = with_base(load_model(sources[0], None, "float32", device), base, "float32", device)
    under = model.base_module
    assert under is not None
    for module in (model.module, under):
        separate_experts(module)
    formats = (named(format),), named(pinned) if pinned else None
    space = search_space(model.module, *formats, tied=True)
    digests = _average(model, sources[1:], space, device, progress)
    if len(set(digests)) < len(digests):
        raise InvalidArgument(
            f"Two of {', '.join(sources)} are one model: give each once, and at least 2."
        )
    _take_over(model.module, under, _names(space))
    made = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    model = replace(model, digest=made, source=" + ".join(sources))
    chosen = {x.name: format for x in space.layers} | {x.name: f.name for x, f in space.pinned}
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        bank = WeightBank.build(folder, model.module, space, Rtn(), base=under)
        Packed().write(model, Allocation(chosen), bank, directory)
    return stored_bytes(directory)


def _average(
    model: LoadedModel,
    sources: Sequence[str],
    space: SearchSpace,
    device: str,
    progress: Progress,
) -> list[str]:
    """Put the mean weights of all models into the first; digests of them all."""
    digests, n = [model.digest], len(sources) + 1
    mean = {name: get_weight(model.module, name) / n for name in _names(space)}
    progress(Event("load", 1, n))
    for source in sources:
        other = load_model(source, None, "float32", device)
        separate_experts(other.module)
        check_same_tensors(other, model)
        for name, total in mean.items():
            total += get_weight(other.module, name) / n
        digests.append(other.digest)
        progress(Event("load", len(digests), n))
    for name, weight in mean.items():
        set_weight(model.module, name, weight)
    return digests


def _take_over(module: nn.Module, base: nn.Module, layers: Sequence[str]) -> None:
    """Give all but the weights of layers the values that they have in the base."""
    held = base.state_dict()
    with torch.no_grad():
        for name, tensor in fixed_tensors(module, layers).items():
            tensor.copy_(held[name])


def _names(space: SearchSpace) -> list[str]:
    return [layer.name for layer in (*space.layers, *(x for x, _ in space.pinned))]
