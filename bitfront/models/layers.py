"""Which weights of a model get a format: linears, convolutions, fused groups, embedding, head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import nn

from bitfront import formats as catalogue
from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.experts import PER_EXPERT, Grouping
from bitfront.models import deployable
from bitfront.models.barred_inputs import input_bars
from bitfront.models.expert_groups import with_experts
from bitfront.models.experts import SeparateExperts
from bitfront.models.matrices import as_matrix, as_stored, can_be_layer
from bitfront.models.probe import groups_by_input, n_positions, read_by_outputs
from bitfront.models.tasks import ImageClassification, task_of
from bitfront.seeing import TIMM
from bitfront.space import Layer, SearchSpace

if TYPE_CHECKING:
    from bitfront.formats.base import Format
    from bitfront.runtimes.base import Runtime

_NARROW = 8
"""Linears with fewer outputs choose or gate (shared-expert gates); they do not transform."""


def blocks(model: nn.Module) -> nn.ModuleList | nn.Sequential:
    """The blocks, or stages: the outermost `nn.ModuleList` whose layers hold most weights.

    Weights are counted, not items, so that neither 128 experts nor a vision tower wins. In models
    of timm it may be an `nn.Sequential` whose items have numbers.

    Raises:
        InvalidModel: no module list holds linear layers.
    """
    of_timm = getattr(getattr(model, "config", None), "model_type", None) == TIMM
    outermost: dict[str, nn.ModuleList | nn.Sequential] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in outermost)
        if _is_list(module, of_timm) and not inside and _linear_weights(module):
            outermost[name] = module
    if not outermost:
        raise InvalidModel(
            f"{type(model).__name__} has no list of blocks (an nn.ModuleList) with linear layers "
            "or convolutions: bitfront needs a model of such blocks."
        )
    return max(outermost.values(), key=_linear_weights)


def find_layers(model: nn.Module, tied: bool = True) -> tuple[Layer, ...]:
    """Every searched layer, in model order, with its fusion group.

    These are the linears and convolutions of the blocks, and those outside them that the logits
    depend on: the projections around a narrow embedding (OPT), the transformation before the head
    (BERT), the stem of a convolutional model, the patches of a vision transformer. Left
    out are embedding and head, routers (as many outputs as there are experts beside them), gates
    narrower than 8 outputs, weights that an image model uses without calling their module (timm's
    BEiT), and weights already listed under another name. Experts stacked into
    one 3-D parameter are no linears: `models.experts.separate_experts` makes them some; else they
    stay at 16 bits and count as fixed bytes.

    A group is the set of linears with the same parent module that read the same input tensor, seen
    in one forward pass of two tokens: what engines fuse (q/k/v, gate/up). Shapes cannot tell (the
    output projection is often square too) and names would be a list of families.

    Args:
        model: a language model that takes token ids.
        tied: whether such linears share a format; if not, each is a group of its own.
    """
    inside = _inside_blocks(model)
    linears = inside | _outside_blocks(model, inside)
    uses = n_positions(model, linears)
    linears = {name: module for name, module in linears.items() if uses.get(name, 1)}
    groups = groups_by_input(model, linears) if tied else {}
    prefix = _name_of(model, blocks(model))
    places = {name: _place(model, name, prefix) for name in linears}
    position = {id(module): index for index, module in enumerate(model.modules())}
    return tuple(
        Layer(
            name,
            _shape(get_weight(model, name)),
            groups.get(name, name),
            *places[name],
            positions=uses.get(name, 1),
        )
        for name in sorted(linears, key=lambda name: position[id(linears[name])])
    )


def find_pinned(model: nn.Module) -> tuple[Layer, ...]:
    """Token embedding and output head; one layer, named after the embedding, when they are tied.

    Of models that classify images, the linear layers that give the classes.
    """
    found: dict[int, Layer] = {}
    for module in _embedding_and_head(model):
        weight = module.get_parameter("weight")
        if id(weight) not in found:
            name = _name_of(model, module)
            found[id(weight)] = Layer(name, _shape(weight), name)
    return tuple(found.values())


def search_space(
    model: nn.Module,
    formats: tuple[Format, ...],
    pinned: Format | None,
    tied: bool,
    runtime: Runtime | None = None,
    experts: Grouping = PER_EXPERT,
    base: nn.Module | None = None,
) -> SearchSpace:
    """The space of a model: searched layers, pinned embedding and head, bytes of all the rest.

    Args:
        model: a causal language model.
        formats: the menu.
        pinned: format of embedding and head, its per-channel variant where its groups do not fit;
            `None` leaves both at 16 bits, within `fixed_bytes`.
        tied: whether fused layers share a format.
        runtime: what is to load every allocation of the space.
        experts: which weights of separate experts share a format.
        base: model that differences are taken from; what equals it takes no bytes.

    Raises:
        InvalidArgument: no format fits some layer, the pinned one does not fit the embedding, or
            the ranks of the runtime do not divide a layer.
        InvalidModel: the runtime does not load such models.
    """
    layers = with_experts(model, find_layers(model, tied), experts)
    if runtime is not None:
        deployable.check_model(model, layers, runtime)
        layers = deployable.with_kernels(layers, runtime)
    bars = deployable.barred(layers, formats, runtime) if runtime is not None else ()
    bars = tuple(dict.fromkeys((*bars, *input_bars(model, layers, formats))))
    pins = tuple((x, _fitting(pinned, x)) for x in find_pinned(model)) if pinned else ()
    fixed = fixed_tensors(model, {x.name for x in (*layers, *(x for x, _ in pins))}, base)
    nbytes = sum(t.numel() * stored_dtype(t).itemsize for t in fixed.values())
    return SearchSpace(layers, formats, pins, nbytes, bars)


def fixed_tensors(
    model: nn.Module, quantized: Iterable[str], base: nn.Module | None = None
) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers that no format touches, by name; shared ones once.

    Args:
        model: the model.
        quantized: names of the layers whose weight is stored in a format.
        base: leave out those that are as in this model.
    """
    same = base.state_dict() if base is not None else {}
    seen = {id(model.get_submodule(name).get_parameter("weight")) for name in quantized}
    fixed: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            if name not in same or not torch.equal(tensor, same[name]):
                fixed[name] = tensor
    return fixed


def stacked_weights(model: nn.Module) -> int:
    """Number of weights in matrices stacked in 3-D (experts): no linears, so at 16 bits."""
    stacks = {id(p): p.numel() for module in model.modules() for p in _stacked(module)}
    return sum(stacks.values())


def stored_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Dtype of a fixed tensor in a checkpoint: bfloat16 for parameters, else its own.

    Means and variances of batch norms, which are buffers, are few and divide: they stay float32.
    """
    rounds = tensor.is_floating_point() and isinstance(tensor, nn.Parameter)
    return torch.bfloat16 if rounds else tensor.dtype


def get_weight(model: nn.Module, name: str) -> torch.Tensor:
    """Weight of a layer as `[out_features, in_features]`: a detached view in the model's dtype.

    Of a convolution `in_features` are the taps of all input channels of its group, channel by
    channel, as `torch.nn.functional.unfold` orders the patches of an input.
    """
    module = model.get_submodule(name)
    return as_matrix(module, module.get_parameter("weight").detach())


def set_weight(model: nn.Module, name: str, weight: torch.Tensor) -> None:
    """Write `weight [out_features, in_features]` in place, so a tied head follows its embedding.

    Dtype and device of the parameter stay.
    """
    module = model.get_submodule(name)
    with torch.no_grad():
        module.get_parameter("weight").copy_(as_stored(module, weight))


def _is_list(module: nn.Module, of_timm: bool) -> TypeGuard[nn.ModuleList | nn.Sequential]:
    if of_timm and isinstance(module, nn.Sequential):
        return all(name.isdecimal() for name, _ in module.named_children())
    return isinstance(module, nn.ModuleList)


def _linears(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_modules(prefix=prefix):
        if can_be_layer(child):
            yield name, child


def _inside_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The searched linears of the blocks, whether they run (experts may not) or not."""
    prefix = _name_of(model, blocks(model))
    linears: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for index, block in enumerate(blocks(model)):
        for name, module in _linears(block, f"{prefix}.{index}"):
            weight = module.get_parameter("weight")
            if id(weight) not in seen and not _routes(model, name, f"{prefix}.{index}"):
                linears[name] = module
                seen.add(id(weight))
    return linears


def _outside_blocks(model: nn.Module, inside: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The searched linears outside the blocks."""
    prefix = _name_of(model, blocks(model))
    listed = (*inside.values(), *_embedding_and_head(model))
    seen = {id(module.get_parameter("weight")) for module in listed}
    in_blocks = {id(module) for module in blocks(model).modules()}
    linears: dict[str, nn.Module] = {}
    for name, module in _linears(model, ""):
        weight = module.get_parameter("weight")
        if id(module) not in in_blocks and id(weight) not in seen:
            if not _routes(model, name, prefix):
                linears[name] = module
            seen.add(id(weight))
    return read_by_outputs(model, linears)


def _linear_weights(module: nn.Module) -> int:
    return sum(child.get_parameter("weight").numel() for _, child in _linears(module, ""))


def _name_of(model: nn.Module, module: nn.Module) -> str:
    names: dict[int, str] = {id(candidate): name for name, candidate in model.named_modules()}
    return names[id(module)]


def _place(model: nn.Module, name: str, prefix: str) -> tuple[int, str]:
    """Block of a linear, -1 outside them, and its kind: its path there.

    The items of a module list do alike (experts, the blocks themselves), so their numbers are left
    out of the path. The numbers in a sequence stay: its steps differ.

    Args:
        model: holds the linear.
        name: of the linear.
        prefix: name of the list of blocks.
    """
    inside = name.startswith(f"{prefix}.")
    block, _, path = name[len(prefix) + 1 :].partition(".") if inside else ("-1", "", name)
    module = model.get_submodule(f"{prefix}.{block}") if inside else model
    kept = []
    for part in path.split(".") if path else ():
        if not isinstance(module, nn.ModuleList):
            kept.append(part)
        module = module.get_submodule(part)
    return int(block), ".".join(kept) or prefix


def _embedding_and_head(model: nn.Module) -> Iterator[nn.Module]:
    language_model: Any = model
    if isinstance(task_of(model), ImageClassification):
        n_classes, in_blocks = language_model.config.num_labels, set(blocks(model).modules())
        for module in model.modules():
            is_head = isinstance(module, nn.Linear) and module.out_features == n_classes
            if is_head and module not in in_blocks:
                yield module
        return
    yield language_model.get_input_embeddings()
    head = language_model.get_output_embeddings()
    if isinstance(head, nn.Linear):
        yield head


def _shape(weight: torch.Tensor) -> tuple[int, int]:
    return int(weight.shape[0]), int(weight.shape[1])


def _routes(model: nn.Module, name: str, block: str) -> bool:
    """Whether a linear is a router or a gate rather than a transformation.

    A router has as many outputs as its MoE module holds experts (a module list, or parameters
    stacked in 3-D); the modules around it are looked at, up to the block.

    Args:
        model: holds the linear.
        name: of the linear.
        block: name of its block; outside the blocks, of their list.
    """
    n_outputs = get_weight(model, name).shape[0]
    if isinstance(model.get_submodule(name), nn.Conv2d):
        return False  # few channels are no gate, and as many as a list is long happen
    if n_outputs < _NARROW:
        return True
    around = name.rpartition(".")[0]
    if isinstance(model.get_submodule(around.rpartition(".")[0]), SeparateExperts):
        return False
    holds_block = not around or block.startswith(f"{around}.")
    n_experts = set() if holds_block else _n_experts(model.get_submodule(around))
    while (around := around.rpartition(".")[0]).startswith(f"{block}."):
        n_experts |= _n_experts(model.get_submodule(around))
    return n_outputs in n_experts


def _n_experts(module: nn.Module) -> set[int]:
    counts = set()
    for inner in module.modules():
        if isinstance(inner, nn.ModuleList):
            counts.add(len(inner))
        else:
            counts |= {len(p) for p in _stacked(inner)}
    return counts


def _stacked(module: nn.Module) -> list[nn.Parameter]:
    """Own parameters of a module that stack matrices; kernels of a convolution are none."""
    if isinstance(module, nn.Conv1d):
        return []
    return [p for p in module.parameters(recurse=False) if p.dim() == 3 and min(p.shape) > 1]


def _fitting(format: Format, layer: Layer) -> Format:
    """The format, or its per-channel variant where its groups do not divide the columns."""
    if format.fits(layer.shape):
        return format
    known = catalogue.catalogue()
    channel = known.get(re.sub(r"_g\d+", "_channel", format.name))
    if channel is None or not channel.fits(layer.shape):
        raise InvalidArgument(
            f"Pinned format {format.name!r} does not fit {layer.name!r} of shape {layer.shape}: "
            f"use one of {', '.join(n for n, f in known.items() if f.fits(layer.shape))}."
        )
    return channel
