"""Log-likelihoods of the choices of multiple-choice items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from bitfront.answers import Answers
from bitfront.errors import InvalidModel, InvalidText, NonFinite
from bitfront.items import DELIMITER, Item
from bitfront.models.data import starting_ids
from bitfront.models.load import LoadedModel
from bitfront.models.reference import is_causal
from bitfront.models.tasks import device_of

_MAX_LOGITS = 2**25
"""Logits of one forward pass: 128 MB of float32."""


@dataclass(frozen=True)
class Continuation:
    """Tokens of a context with one choice behind it.

    Args:
        item: index of the item.
        index: of the choice among those of the item.
        ids: of context and choice.
        n_context: how many of them are the context's, at least 1.
    """

    item: int
    index: int
    ids: tuple[int, ...]
    n_context: int


@dataclass(frozen=True, eq=False)
class Questions:
    """Items cut into tokens, ready for any model of one tokenizer.

    Args:
        items: what is asked.
        choices: every choice of every item.
        n_rows: of the embedding.
    """

    items: tuple[Item, ...]
    choices: tuple[Continuation, ...]
    n_rows: int

    @classmethod
    def of(cls, items: Sequence[Item], model: LoadedModel, source: str = "items") -> Questions:
        """Cut items into tokens as lm-eval does.

        Context and choice are encoded together and cut where the context alone ends, so that a
        token on the border is the choice's; spaces that end a context go to the choice. An empty
        context is the BOS token, or that of the end of a text.

        Args:
            items: what is asked.
            model: whose tokens; it must predict from what came before alone.
            source: of the items, for messages.

        Raises:
            InvalidText: an item is longer than the model has positions, has a token that the model
                lacks, or a choice without a token of its own.
            InvalidModel: it sees later tokens, so that a choice would be known beforehand.
        """
        longest = getattr(model.module.config, "max_position_embeddings", None)
        choices = []
        for number, item in enumerate(items):
            for index, (context, text) in enumerate(zip(item.contexts, item.choices, strict=True)):
                made = _encoded(model.tokenizer, context, DELIMITER + text)
                choice = Continuation(number, index, *made)
                reason = _unfit(choice, longest, model.n_rows)
                if reason:
                    raise InvalidText(f"Item {number + 1} of {source}, choice {index}: {reason}")
                choices.append(choice)
        if not is_causal(model.module, torch.tensor(choices[0].ids)):
            raise InvalidModel(
                f"{model.source} sees later tokens, so that it knows a choice before it predicts "
                "it: multiple-choice items need a causal language model."
            )
        return cls(tuple(items), tuple(choices), model.n_rows)

    def asked(
        self, model: nn.Module, progress: Callable[[int, int], None] | None = None
    ) -> Answers:
        """The answers of a model.

        Choices of one length go through it together, so that nothing is padded and no mask is
        needed.

        Args:
            model: causal language model in evaluation mode.
            progress: called with `(choices done, choices in all)`.

        Raises:
            NonFinite: the model predicts NaN or infinity; names the item.
        """
        shape = (len(self.items), max(len(item.choices) for item in self.items))
        found, n_bytes = np.full(shape, -np.inf), np.ones(shape)
        for index, item in enumerate(self.items):
            n_bytes[index, : len(item.choices)] = item.n_bytes
        n_done = 0
        for batch in self._batches():
            for choice, value in zip(batch, _log_likelihoods(model, batch), strict=True):
                if not np.isfinite(value):
                    raise NonFinite(
                        f"The log-likelihood of choice {choice.index} of item {choice.item + 1} is "
                        f"{value}: the model overflows. Use formats with more bits, or float32."
                    )
                found[choice.item, choice.index] = value
            n_done += len(batch)
            if progress:
                progress(n_done, len(self.choices))
        return Answers(found, n_bytes, np.array([item.answer for item in self.items]))

    def _batches(self) -> Iterator[list[Continuation]]:
        """Choices of one length, as many together as their logits may be."""
        by_length = defaultdict(list)
        for choice in self.choices:
            by_length[len(choice.ids)].append(choice)
        for length, same in sorted(by_length.items()):
            size = max(1, _MAX_LOGITS // (length * self.n_rows))
            yield from (same[start : start + size] for start in range(0, len(same), size))


def _encoded(tokenizer: Any, context: str, text: str) -> tuple[tuple[int, ...], int]:
    """Token ids of both, and how many are the context's."""
    kept = context.rstrip()
    text = context[len(kept) :] + text
    start = starting_ids(tokenizer)
    if not kept:
        start = [x for x in (tokenizer.bos_token_id, tokenizer.eos_token_id) if x is not None][:1]
    alone, both = (
        tokenizer(x, add_special_tokens=False, verbose=False)["input_ids"] if x else []
        for x in (kept, kept + text)
    )
    return (*start, *both), len(start) + len(alone)


def _unfit(choice: Continuation, longest: int | None, n_rows: int) -> str:
    """Why a choice cannot be put to a model; empty where it can."""
    n = len(choice.ids)
    if not 1 <= choice.n_context < n:
        return "context and choice have no token each: give both, or a model with BOS."
    if longest is not None and n > longest:
        return f"its {n} tokens are more than the {longest} positions of the model: leave it out."
    if (largest := max(choice.ids)) >= n_rows:
        return f"token id {largest} has no row in the model's embedding of {n_rows}."
    return ""


def _log_likelihoods(model: nn.Module, batch: Sequence[Continuation]) -> NDArray[np.float64]:
    """Sum over the tokens of each choice, `[n]`; all sequences are of one length."""
    device = device_of(model)
    tokens = torch.tensor([choice.ids for choice in batch], device=device)
    with torch.no_grad():
        logits: torch.Tensor = model(tokens, use_cache=False).logits
    values = []
    for row, ids, choice in zip(logits, tokens, batch, strict=True):
        scored = row[choice.n_context - 1 : -1].float()
        losses = cross_entropy(scored, ids[choice.n_context :], reduction="none")
        values.append(-float(losses.double().sum()))
    return np.array(values)
