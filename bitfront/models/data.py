"""Calibration and evaluation text as blocks of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

import torch

from bitfront.errors import InvalidText
from bitfront.models.texts import MAX_CHARACTERS, texts_of

_PIECE = 1_000_000
"""Characters tokenized at a time."""
_WINDOW = 32
"""Tokens in a row that two different texts do not share: longer than phrases and names."""
_HASH_BASE = 6364136223846793005  # of Knuth's 64-bit generator: odd, with mixed high bits


def token_blocks(
    source: str,
    tokenizer: Any,
    n_sequences: int,
    sequence_length: int,
    seed: int,
) -> torch.Tensor:
    """Random blocks of consecutive tokens, int64 `[n_sequences, sequence_length]`, no overlap.

    The text is cut into blocks, the seed puts them in an order, and the first are taken. Each
    starts with the `starting_ids` of the tokenizer, which count among its tokens.

    Args:
        source: a `.jsonl` or `.json` file (one record a line, or one list), any other file as
            UTF-8 text, or a `datasets` name: `name`, `name:config` or `name:config:split`, where
            `name@revision` names a branch, tag or commit.
            A record has `text`; or `messages` (chat turns); or `prompt` with, if any, `completion`
            or `response`; or is a multiple-choice item, whose text is its context with the right
            choice. Records are joined by an empty line.
        tokenizer: of the model.
        n_sequences: how many blocks.
        sequence_length: tokens of a block.
        seed: which blocks.

    Raises:
        InvalidText: empty, too short, unreadable, not JSON, or without such keys.
    """
    tokens = _tokens(texts_of(source, tokenizer), tokenizer)
    start = torch.tensor(starting_ids(tokenizer), dtype=torch.int64)
    length = sequence_length - len(start)
    n_needed = n_sequences * length
    if len(tokens) < n_needed:
        raise InvalidText(
            f"{source} has {len(tokens):,} tokens, {n_needed:,} are needed "
            f"({n_sequences} blocks of {sequence_length}{', one of them BOS' * len(start)}): "
            "give a longer text, or fewer or shorter sequences."
        )
    blocks = tokens[: len(tokens) // length * length].view(-1, length)
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(seed))
    taken = blocks[order[:n_sequences]]
    return torch.cat([start.expand(len(taken), -1), taken], dim=1)


def starting_ids(tokenizer: Any) -> list[int]:
    """The id of BOS where the tokenizer puts it before a text unasked, else nothing.

    Such models (Gemma, Llama) were trained with it and some predict nonsense without. It is found
    by encoding: that a BOS is defined (SmolLM2, GPT-2) does not mean that it is used.
    """
    bos = tokenizer.bos_token_id
    plain = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    default = tokenizer("a", verbose=False)["input_ids"]
    return [bos] if bos is not None and default[:1] == [bos] != plain[:1] else []


def digest(tokens: torch.Tensor) -> str:
    """SHA-256 of shape and token ids, or pixels, in hexadecimal."""
    dtype = torch.float32 if tokens.is_floating_point() else torch.int64
    ids = tokens.detach().to("cpu", dtype).contiguous()
    return hashlib.sha256(f"{tuple(ids.shape)}\n".encode() + ids.numpy().tobytes()).hexdigest()


def check_disjoint(
    calibration: torch.Tensor,
    evaluation: torch.Tensor,
    calibration_source: str = "",
    evaluation_source: str = "",
    n_starting: int = 0,
) -> None:
    """Check that no 32 tokens in a row, at whatever offset, are in both texts.

    Blocks shorter than that are compared whole. A row of tokens that recurs within one of the texts
    (a chat template's system prompt, a licence) tells nothing, unless it is a whole block.

    Args:
        calibration: blocks of tokens, `[n_sequences, sequence_length]`.
        evaluation: blocks of the other text; sequences may have another length.
        calibration_source: where the text came from, for the message.
        evaluation_source: likewise.
        n_starting: how many tokens every block starts with that are no text, such as BOS.

    Raises:
        InvalidText: the texts overlap.
    """
    calibration, evaluation = calibration[:, n_starting:], evaluation[:, n_starting:]
    whole = min(calibration.shape[1], evaluation.shape[1])
    width = min(whole, _WINDOW)
    ours, theirs = (_window_hashes(x, width) for x in (calibration, evaluation))
    n_shared = int(torch.isin(_once(theirs), _once(ours)).sum())
    if not n_shared:
        ours, theirs = (_window_hashes(x, whole) for x in (calibration, evaluation))
        n_shared = int(torch.isin(theirs, ours).sum())
    if n_shared:
        first, second = (f" {x!r}" if x else "" for x in (calibration_source, evaluation_source))
        raise InvalidText(
            f"Calibration text{first} and evaluation text{second} share {width} tokens in a row, "
            f"in {n_shared:,} place{'s' * (n_shared > 1)}: give two different texts."
        )


def _window_hashes(tokens: torch.Tensor, width: int) -> torch.Tensor:
    """64-bit hash of the `width` tokens from every position of every block, `[n]`.

    t[i] + t[i+1] base + t[i+2] base^2 + ... modulo 2^64, from one cumulative sum.
    """
    tokens = tokens.detach().to("cpu", torch.int64) + 1
    length = tokens.shape[1]
    sums = torch.zeros(len(tokens), length + 1, dtype=torch.int64)
    torch.cumsum(tokens * _powers(_HASH_BASE, length), dim=1, out=sums[:, 1:])
    windows = sums[:, width:] - sums[:, : length - width + 1]
    inverse = pow(_HASH_BASE, -1, 1 << 64)
    return (windows * _powers(inverse, windows.shape[1])).reshape(-1)


def _powers(base: int, n: int) -> torch.Tensor:
    """base^0 to base^(n-1) modulo 2^64, as the int64 of the same bits."""
    powers = accumulate(range(1, n), lambda power, _: power * base % 2**64, initial=1)
    return torch.tensor([(power + 2**63) % 2**64 - 2**63 for power in powers])


def _once(values: torch.Tensor) -> torch.Tensor:
    """The values that come exactly once."""
    values = values.sort().values
    edges = torch.ones(len(values) + 1, dtype=torch.bool)
    edges[1:-1] = values[1:] != values[:-1]
    return values[edges[1:] & edges[:-1]]


def _tokens(texts: Iterable[str], tokenizer: Any) -> torch.Tensor:
    """All token ids, int64 `[n_tokens]`, up to the character limit."""
    kept: list[str] = []
    n_characters = 0
    for text in filter(None, texts):
        kept.append(text)
        n_characters += len(text) + 2
        if n_characters >= MAX_CHARACTERS:
            break
    ids: list[int] = []
    for piece in _pieces("\n\n".join(kept)[:MAX_CHARACTERS]):
        ids += tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor(ids, dtype=torch.int64)


def _pieces(text: str) -> Iterator[str]:
    """Parts of about `_PIECE` characters that end at line breaks: long texts are slow at once."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start + _PIECE // 2, start + _PIECE) + 1
        end = end or start + _PIECE
        yield text[start:end]
        start = end
