"""Text that needs no data: random tokens, what the model writes itself; or images of its own."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.gradients import frozen
from bitfront.models.own_images import distilled_images, random_images
from bitfront.models.tasks import CausalText, ImageClassification, Task, device_of, task_of

_MADE: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Tensor]] = WeakKeyDictionary()
TEXTS = ("calibration", "random", "sampled", "distilled")


def check_text(text: str) -> None:
    """Refuse an unknown kind of text.

    Raises:
        InvalidArgument: what was given and what is allowed.
    """
    if text not in TEXTS:
        raise InvalidArgument(f"Unknown text {text!r}: use {', '.join(TEXTS)}.")


def chosen_text(text: str, model: nn.Module, given: Tensor, seed: int) -> Tensor:
    """The given samples, or as many that need no data.

    Args:
        text: one of `TEXTS`; `"sampled"` is written by language models, `"distilled"` images are of
            models with batch norms.
        model: causal language model, or image classifier; of other tasks `"calibration"` alone.
        given: calibration samples; only their shape counts otherwise.
        seed: of what is drawn.

    Raises:
        InvalidArgument: the model has no such text; says what to take.
    """
    if text == "calibration":
        return given
    task = task_of(model)
    _check_own(text, model, task)
    if text == "random" and not isinstance(task, ImageClassification):
        return random_tokens(model, given.shape[0], given.shape[1], seed)
    # A table made block by block asks for the same text once a block.
    known = _MADE.setdefault(model, {})
    key = (text, *given.shape, seed)
    if key not in known:
        if text == "random":
            known[key] = random_images(model, given.shape, seed)
        elif text == "distilled":
            known[key] = distilled_images(model, given.shape, seed)
        else:
            known[key] = sampled_tokens(model, given.shape[0], given.shape[1], seed)
    return known[key]


def _check_own(text: str, model: nn.Module, task: Task) -> None:
    kind = type(model).__name__
    if not isinstance(task, CausalText | ImageClassification):
        raise InvalidArgument(
            f"text {text!r} is of language models and image classifiers, not {kind}: "
            "take 'calibration'."
        )
    if text == "sampled" and isinstance(task, ImageClassification):
        raise InvalidArgument(
            f"text 'sampled' is of language models, not {kind}: take 'calibration', 'random' or, "
            "of a model with batch norms, 'distilled'."
        )
    if text == "distilled" and isinstance(task, CausalText):
        raise InvalidArgument(
            f"text 'distilled' is of image classifiers with batch norms, not {kind}: "
            "take 'sampled'."
        )


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
    device = device_of(model)
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
