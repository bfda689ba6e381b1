"""Stacked experts as separate linear layers: what hooks, swaps and packed weights can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.experts import TokensSeen
from bitfront.models.tasks import run

_NAMES_OF_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts")


class Expert(nn.Module):
    """The matrices of one expert, as linear layers by their names in the stack."""


class SeparateExperts(nn.ModuleList):
    """Routed experts of a block, each a module `<number>` with linear layers of its own.

    It computes what a stacked module of transformers does with its loop over experts ("eager"),
    token by token the same sums: an expert's layers are called with the tokens that were routed to
    it, in the order of the text, and not called if there are none.

    Args:
        stack: a module that `use_experts_implementation` of transformers marks. It gives its
            weights away, which are shared and not copied, and keeps its activation.
    """

    def __init__(self, stack: nn.Module) -> None:
        # In a tuple, so that what is left of the stack is no submodule.
        self.first = "gate_up_proj" if stack.has_gate else "up_proj"
        super().__init__(
            _expert(stack, index, (self.first, "down_proj"))
            for index in range(len(stack.get_parameter("down_proj")))
        )
        self._stack = (stack,)
        self.is_transposed = bool(stack.is_transposed)
        for name in list(stack._parameters):
            del stack._parameters[name]
        self.train(stack.training)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Weighted sum of the experts of each token.

        Args:
            hidden_states: `[n_tokens, hidden_size]`.
            top_k_index: experts of each token, int64 `[n_tokens, n_experts_per_token]`; a number
                beyond the last expert stands for none.
            top_k_weights: their weights, `[n_tokens, n_experts_per_token]`.
        """
        total = torch.zeros_like(hidden_states)
        for index in top_k_index.unique().tolist():  # type: ignore[no-untyped-call]
            if index < len(self):
                tokens, places = torch.where(top_k_index == index)
                output = self._one(self[index], hidden_states[tokens])
                weighted = output * top_k_weights[tokens, places, None]
                total.index_add_(0, tokens, weighted.to(total.dtype))
        return total

    def _one(self, expert: nn.Module, inputs: Tensor) -> Tensor:
        stack: Any = self._stack[0]
        activation = stack._apply_gate if stack.has_gate else stack.act_fn
        up, down = expert.get_submodule(self.first), expert.get_submodule("down_proj")
        output: Tensor = down(activation(up(inputs)))
        return output


def separate_experts(model: nn.Module) -> int:
    """Put separate experts in the place of all stacked ones; returns in how many blocks.

    Stacks with something after each expert (a norm) or other parameters are left as they are.
    """
    stacks = [(name, m) for name, m in model.named_modules() if _is_stack(m)]
    for name, stack in stacks:
        model.set_submodule(name, SeparateExperts(stack))
    return len(stacks)


def expert_modules(model: nn.Module) -> dict[str, SeparateExperts]:
    """The modules with the separate experts of a block, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, SeparateExperts)}


def active_share(model: nn.Module, n_experts: int) -> float:
    """Share of the experts that a token goes through, by the configuration; 1 if it has none."""
    config: Any = model.config
    config = config.get_text_config()
    for name in _NAMES_OF_TOP_K:
        n_active = getattr(config, name, None)
        if isinstance(n_active, int) and 0 < n_active <= n_experts:
            return n_active / n_experts
    return 1.0


def restacked(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name, those of separate experts stacked again as transformers has them.

    Args:
        model: with separate experts, or with none.
        tensors: of the whole model, an expert's weight as `[out_features, in_features]`.
    """
    made = dict(tensors)
    for module, experts in expert_modules(model).items():
        for part in (experts.first, "down_proj"):
            for kind, end in (("weight", ""), ("bias", "_bias")):
                names = [f"{module}.{index}.{part}.{kind}" for index in range(len(experts))]
                if names[0] in made:
                    stack = torch.stack([made.pop(name) for name in names])
                    turned = experts.is_transposed and kind == "weight"
                    made[f"{module}.{part}{end}"] = stack.mT.contiguous() if turned else stack
    return made


def tokens_seen(
    model: nn.Module, tokens: Tensor, progress: Callable[[int, int], None] | None = None
) -> TokensSeen:
    """Count the tokens that each separate expert sees, in one forward pass.

    Args:
        model: causal language model; nothing runs where it has no separate experts.
        tokens: int64 `[n_sequences, length]`.
        progress: called with `(sequences done, sequences in all)`.
    """
    modules = expert_modules(model)
    counts = {name: torch.zeros(len(m), dtype=torch.long) for name, m in modules.items()}
    if not modules:
        return TokensSeen({})

    def counting(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            found = args[1].reshape(-1).cpu().bincount(minlength=len(counts[name]))
            counts[name] += found[: len(counts[name])]

        return hook

    hooks = [m.register_forward_pre_hook(counting(name)) for name, m in modules.items()]
    try:
        with torch.no_grad():
            for done, sequence in enumerate(tokens, start=1):
                run(model, sequence[None])
                if progress is not None:
                    progress(done, len(tokens))
    finally:
        for each in hooks:
            each.remove()
    return TokensSeen({name: tuple(count.tolist()) for name, count in counts.items()})


def _is_stack(module: nn.Module) -> bool:
    """Whether a module is of stacked experts that `SeparateExperts` computes alike."""
    if isinstance(module, SeparateExperts) or not hasattr(module, "_apply_gate"):
        return False
    stack: Any = module
    if getattr(stack, "has_post_expert_norm", True) or stack._is_expert_parallel:
        return False
    first = "gate_up_proj" if stack.has_gate else "up_proj"
    known = set(_names(stack, (first, "down_proj")))
    shapes = [stack.get_parameter(name).shape for name in known if not name.endswith("_bias")]
    return set(dict(module.named_parameters())) == known and all(len(x) == 3 for x in shapes)


def _names(stack: Any, parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        yield part
        if stack.has_bias:
            yield f"{part}_bias"


def _expert(stack: Any, index: int, parts: tuple[str, ...]) -> Expert:
    expert = Expert()
    for part in parts:
        weights = stack.get_parameter(part)
        weight = weights.detach()[index].T if stack.is_transposed else weights.detach()[index]
        n_rows, n_columns = weight.shape
        linear = nn.Linear(n_columns, n_rows, bias=stack.has_bias, device="meta")
        linear.weight = nn.Parameter(weight, weights.requires_grad)
        if stack.has_bias:
            biases = stack.get_parameter(f"{part}_bias")
            linear.bias = nn.Parameter(biases.detach()[index], biases.requires_grad)
        expert.add_module(part, linear)
    return expert
