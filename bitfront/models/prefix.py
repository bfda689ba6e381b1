"""BlockStart: runs a model from the input of one transformer block, earlier blocks skipped."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn

from bitfront.errors import NonFinite
from bitfront.models.layers import blocks
from bitfront.models.reference import Answers
from bitfront.models.tasks import run, scored_outputs, task_of

logger = logging.getLogger(__name__)


class BlockStart:
    """Hidden states of the unquantized model at the input of one block, reused for many candidates.

        with BlockStart(model, reference) as start:
            for index in start.visit(layers):   # weights unquantized here
                ...                             # change those of layers[index]
                start.kl()                      # only its block and later ones run

    Memory: one hidden state per token, whatever the depth. A pass over all blocks with the same
    number of candidates each runs (n + 1) / (2 n) of the blocks' work, embedding and head in full.
    Each move is checked on one sequence.

    Args:
        model: its blocks get their own `forward` back at the end, also after exceptions.
        reference: predictions of the unquantized model; its tokens are the text.
    """

    def __init__(self, model: nn.Module, reference: Answers) -> None:
        self.model = model
        self.reference = reference
        self._blocks = list(blocks(model))
        self._at = 0
        self._skips = True
        # What block `_at - 1` returned per sequence: a tensor, or a tuple that starts with one.
        self._outputs: list[Any] = [None] * len(reference.tokens)

    def __enter__(self) -> BlockStart:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._outputs.clear()

    @property
    def n_blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self._blocks)

    def block_of(self, layer: str) -> int:
        """Index of the first block that must run when the weight of a layer changes.

        That is its own block; for layers outside the blocks, the number of blocks that run before
        any reader of the weight: 0 for what feeds the first, `n_blocks` for what follows the last.
        """
        is_cache = layer.endswith((".k_cache", ".v_cache"))
        module = self.model.get_submodule(layer.rpartition(".")[0] if is_cache else layer)
        for index, block in enumerate(self._blocks):
            if any(part is module for part in block.modules()):
                return index
        return min(self._n_before(module.get_parameter("weight")), self.n_blocks)

    def visit(self, layers: Sequence[str]) -> Iterator[int]:
        """Indices of `layers` by block, each when the start is at its block.

        The model must hold its own weights whenever the next one is asked for.
        """
        for block, index in sorted((self.block_of(name), i) for i, name in enumerate(layers)):
            self.move_to(block)
            yield index

    def move_to(self, block: int) -> None:
        """Start at `block`, at or after the current one; the model must hold its own weights.

        Where skipping changes predictions (blocks that run more than once, or whose output is not
        all that the next one reads), all blocks run from here on.
        """
        if not self._skips or block <= self._at:
            return
        while self._at < block:
            self._outputs = [self._advanced(index) for index in range(len(self.reference.tokens))]
            self._at += 1
        if self.reference.divergence(self.logits(0), 0).any():
            logger.info("block %d does not take over what the earlier ones did: all run", block)
            self._skips, self._at = False, 0

    def logits(self, index: int) -> torch.Tensor:
        """`scored_outputs` of sequence `index`, `[n_scored, vocabulary]`."""
        with self._skipping(index):
            return scored_outputs(self.model, self.reference.tokens[index])

    def kl(self) -> float:
        """Mean KL per token of the model as its weights now stand, in nats; at least 0.

        Of embeddings it is their mean cosine error.

        Raises:
            NonFinite: it is NaN or infinite.
        """
        n = len(self.reference.tokens)
        parts = [self.reference.divergence(self.logits(i), i) for i in range(n)]
        means = [part.double().mean().item() for part in parts]
        kl = sum(means) / n
        if not math.isfinite(kl):
            raise NonFinite(
                f"KL is {kl} with weights changed from block {self._at} on: the model overflows. "
                "Use formats with more bits, or run the model in float32."
            )
        # Rounding can push the KL of an unchanged prediction just below zero.
        return max(kl, 0.0)

    def _n_before(self, weight: nn.Parameter) -> int:
        """Blocks that have run when the first module with this weight does, on two tokens."""
        n_run = 0

        def count(*_: object) -> None:
            nonlocal n_run
            n_run += 1

        def stop(*_: object) -> None:
            raise _ReachedError(n_run)

        readers = [m for m in self.model.modules() if _holds(m, weight)]
        hooks = [block.register_forward_hook(count) for block in self._blocks]
        hooks += [module.register_forward_pre_hook(stop) for module in readers]
        try:
            run(self.model, task_of(self.model).probe(self.model))
        except _ReachedError as reached:
            return int(reached.output)
        finally:
            for hook in hooks:
                hook.remove()
        return 0

    def _advanced(self, index: int) -> Any:
        with self._skipping(index), _last_block(self._blocks[self._at]):
            try:
                scored_outputs(self.model, self.reference.tokens[index])
            except _ReachedError as reached:
                return reached.output
        raise AssertionError("the forward pass left out a block")

    @contextmanager
    def _skipping(self, index: int) -> Iterator[None]:
        output = self._outputs[index]
        with ExitStack() as stack:
            for block in self._blocks[: self._at]:
                stack.enter_context(_forward(block, lambda *_args, **_kwargs: output))
            yield


def _holds(module: nn.Module, weight: nn.Parameter) -> bool:
    return any(parameter is weight for parameter in module.parameters(recurse=False))


class _ReachedError(Exception):
    """Ends a forward pass whose rest is not wanted."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def _last_block(block: nn.Module) -> Iterator[None]:
    def stop(_module: nn.Module, _inputs: object, output: object) -> None:
        raise _ReachedError(output)

    hook = block.register_forward_hook(stop)
    try:
        yield
    finally:
        hook.remove()
