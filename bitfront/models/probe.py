"""What one sample shows of the layers of a model: which matter, which share inputs, how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from bitfront.errors import InvalidModel, first_line
from bitfront.models.matrices import as_matrix
from bitfront.models.tasks import ImageClassification, task_of


def read_by_outputs(model: nn.Module, linears: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Those linears that the logits of two tokens depend on: not a pooler, nor what never runs."""
    if not linears:
        return {}
    outputs: list[tuple[str, torch.Tensor]] = []

    def record(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            # Where parameters are frozen no output has a gradient of its own.
            outputs.append((name, output if output.requires_grad else output.requires_grad_()))

        return hook

    hooks = [m.register_forward_hook(record(name)) for name, m in linears.items()]
    with torch.enable_grad():
        try:
            logits = _run_probe(model)
        finally:
            for handle in hooks:
                handle.remove()
        if not outputs or not logits.requires_grad:
            return {}
        tensors = [output for _, output in outputs]
        gradients = torch.autograd.grad(logits.sum(), tensors, allow_unused=True)
    read = {name for (name, _), g in zip(outputs, gradients, strict=True) if g is not None}
    return {name: module for name, module in linears.items() if name in read}


def groups_by_input(model: nn.Module, linears: Mapping[str, nn.Module]) -> dict[str, str]:
    """Group name of each linear that ran: linears of one parent that read one tensor."""
    members: dict[tuple[str, int], list[str]] = {}
    # Inputs are kept alive through the pass: a freed tensor's id could come back as another's.
    inputs: list[torch.Tensor] = []

    def record(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            inputs.append(arguments[0])
            names = members.setdefault((name.rpartition(".")[0], id(arguments[0])), [])
            if name not in names:
                names.append(name)

        return hook

    hooks = [m.register_forward_pre_hook(record(name)) for name, m in linears.items()]
    try:
        with torch.no_grad():
            _run_probe(model)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _group_name(names) for names in members.values() for name in names}


def n_positions(model: nn.Module, linears: Mapping[str, nn.Module]) -> dict[str, int]:
    """At how many positions of one image each weight is multiplied; of texts nothing is counted.

    0 where a model uses the weight without calling its module, as timm's BEiT does.
    """
    if not isinstance(task_of(model), ImageClassification):
        return {}
    uses = dict.fromkeys(linears, 0)

    def count(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def hook(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            uses[name] += output.numel() // len(as_matrix(module, module.get_parameter("weight")))

        return hook

    hooks = [module.register_forward_hook(count(name)) for name, module in linears.items()]
    try:
        with torch.no_grad():
            _run_probe(model)
    finally:
        for handle in hooks:
            handle.remove()
    return uses


def _group_name(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    parent = names[0].rpartition(".")[0]
    return f"{parent}.{'+'.join(sorted(name.rpartition('.')[2] for name in names))}"


def _run_probe(model: nn.Module) -> torch.Tensor:
    """Outputs `[1, n_outputs, size]` for the smallest sample of the model's task."""
    task = task_of(model)
    try:
        return task.outputs(model, task.probe(model))
    except Exception as error:  # any family's own complaint; the message names it
        raise InvalidModel(
            f"{type(model).__name__} does not run on {task.fed} alone ({first_line(error)}): "
            "bitfront needs a model that predicts next tokens, classifies images or embeds "
            "sentences."
        ) from error
