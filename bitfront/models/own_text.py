"""Text that needs no data: random tokens, or what the model writes itself."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.gradients import frozen
from bitfront.models.tasks import CausalText, task_of

_SAMPLED: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], Tensor]] = WeakKeyDictionary()
TEXTS = ("calibration", "random", "sampled")


def check_text(text: str) -> None:
    """Refuse an unknown kind of text.

    Raises:
        InvalidArgument: what was given and what is allowed.
    """
    if text not in TEXTS:
        raise InvalidArgument(f"Unknown text {text!r}: use {', '.join(TEXTS)}.")


def chosen_text(text: str, model: nn.Module, given: Tensor, seed: int) -> Tensor:
    """The given tokens, or as many that need no data.

    Args:
        text: one of `TEXTS`.
        model: causal language model.
        given: calibration tokens, int64 `[n_sequences, length]`; only their shape counts otherwise.
        seed: of what is drawn.
    """
    if text == "calibration":
        return given
    if not isinstance(task_of(model), CausalText):
        raise InvalidArgument(
            f"text {text!r} is of language models, not {type(model).__name__}: take 'calibration'."
        )
    if text == "random":
        return random_tokens(model, given.shape[0], given.shape[1], seed)
    # A table made block by block asks for the same text once a block.
    known = _SAMPLED.setdefault(model, {})
    key = (*given.shape, seed)
    if key not in known:
        known[key] = sampled_tokens(model, given.shape[0], given.shape[1], seed)
    return known[key]


def random_tokens(model: nn.Module, n_sequences: int, length: int, seed: int) -> Tensor:
    """Token ids drawn evenly from the vocabulary, int64 `[n_sequences, length]`.

    HIGGS (Malinovskii et al. 2024, section 5) measures its slopes on such text.
    """
    n_tokens = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(n_tokens, (n_sequences, length), generator=generator)


def sampled_tokens(model: nn.Module, n_sequences: int, length: int, seed: int) -> Tensor:
    """Text that the model writes at temperature 1, int64 `[n_sequences, length]`.

    Each sequence begins with the beginning-of-text token, or where the model knows none with a
    random one. For language models this is what ZeroQ (Cai et al. 2020, section 3.1) distills from
    batch norms: inputs that look to the model like those it was trained on. Costs one forward pass
    over the text, a token at a time.
    """
    generator = torch.Generator().manual_seed(seed)
    first = getattr(model.config, "bos_token_id", None)
    start = random_tokens(model, n_sequences, 1, seed)
    tokens = torch.full_like(start, first) if isinstance(first, int) else start
    device = next(model.parameters()).device
    past = None
    with frozen(model), torch.no_grad():
        while tokens.shape[1] < length:
            fed = tokens if past is None else tokens[:, -1:]
            output = model(fed.to(device), past_key_values=past, use_cache=True)
            past = getattr(output, "past_key_values", None)
            chances = torch.softmax(output.logits[:, -1].float(), dim=-1).cpu()
            drawn = torch.multinomial(chances, 1, generator=generator)
            tokens = torch.cat([tokens, drawn], dim=1)
    return tokens
