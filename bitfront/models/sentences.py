"""Sentence encoders: how a folder pools, and sentences of a text as padded tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bitfront.errors import InvalidModel, InvalidText
from bitfront.models.tasks import POOLINGS, SentenceEmbedding
from bitfront.models.texts import texts_of

_MODULES, _POOLING = "modules.json", "1_Pooling/config.json"
PADDING = -1
"""Stands where a sentence has ended: no token has that id."""


def is_sentence_encoder(folder: Path) -> bool:
    """Whether a folder is laid out as the package sentence-transformers writes it."""
    return (folder / _MODULES).exists() or (folder / _POOLING).exists()


def pooling_of(folder: Path) -> SentenceEmbedding:
    """The task of an encoder: pooled as `1_Pooling/config.json` states, else by the mean.

    Raises:
        InvalidModel: it pools otherwise, or has more behind it than a normalisation.
    """
    _check_modules(folder)
    path = folder / _POOLING
    if not path.exists():
        return SentenceEmbedding()
    stated = _read(path)
    if isinstance(mode := stated.get("pooling_mode"), str):
        modes = [mode]
    else:
        start = "pooling_mode_"
        modes = [key.removeprefix(start) for key, on in stated.items() if on is True]
        modes = [x.removesuffix("_tokens").removesuffix("_token") for x in modes]
    modes = [mode for mode in modes if mode != "include_prompt"]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise InvalidModel(
            f"{path} pools by {', '.join(modes) or 'nothing'}: "
            f"bitfront knows one of {', '.join(POOLINGS)}."
        )
    return SentenceEmbedding(modes[0])


def save_pooling(folder: Path, task: SentenceEmbedding) -> None:
    """Lay a folder with an encoder out as sentence-transformers loads it.

    Args:
        folder: has the model.
        task: says how it pools.
    """
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    keys = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    stated = {f"pooling_mode_{key}": mode == task.pooling for mode, key in keys.items()}
    (folder / _MODULES).write_text(json.dumps(modules, indent=2))
    (folder / "1_Pooling").mkdir()
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    (folder / _POOLING).write_text(json.dumps({"word_embedding_dimension": width} | stated))


def _check_modules(folder: Path) -> None:
    path = folder / _MODULES
    if not path.exists():
        return
    kinds = [str(each.get("type", "")).rpartition(".")[2] for each in _read(path)]
    if others := [kind for kind in kinds if kind not in {"Transformer", "Pooling", "Normalize"}]:
        raise InvalidModel(
            f"{path} names {others[0]}, and its weights would be left out: bitfront knows encoders "
            "of a transformer, a pooling and a normalisation."
        )
    if "Pooling" in kinds and not (folder / _POOLING).exists():
        raise InvalidModel(f"{folder} lacks {_POOLING}, which says how it pools: download it.")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidModel(f"Cannot read {path}: {error}.") from error


def sentence_tokens(
    source: str, tokenizer: Any, n_sentences: int, max_length: int, seed: int
) -> torch.Tensor:
    """Random sentences of a text, int64 `[n_sentences, length]`, `PADDING` after their ends.

    Each line that is not empty, or each record of JSON lines, is one; equal ones count once. The
    seed puts them in an order, and the first are taken.

    Args:
        source: as that of `token_blocks`.
        tokenizer: of the model; its special tokens are added.
        n_sentences: how many.
        max_length: tokens beyond it are cut off.
        seed: which.

    Raises:
        InvalidText: too few, or unreadable.
    """
    lines = (line.strip() for text in texts_of(source, tokenizer) for line in text.splitlines())
    sentences = list(dict.fromkeys(line for line in lines if line))
    if len(sentences) < n_sentences:
        raise InvalidText(
            f"{source} has {len(sentences):,} sentences (different lines), {n_sentences:,} are "
            "needed: give a longer text, or fewer sequences."
        )
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(seed))
    chosen = [sentences[i] for i in order[:n_sentences]]
    rows = tokenizer(chosen, truncation=True, max_length=max_length, verbose=False)["input_ids"]
    made = torch.full((len(rows), max(map(len, rows))), PADDING)
    for row, ids in zip(made, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return made


def check_other_sentences(
    calibration: torch.Tensor, evaluation: torch.Tensor, sources: tuple[str, str]
) -> None:
    """Check that no sentence is in both texts.

    Raises:
        InvalidText: they share some.
    """
    ours, theirs = (
        {tuple(t for t in row if t != PADDING) for row in x.tolist()}
        for x in (calibration, evaluation)
    )
    if n_shared := len(ours & theirs):
        raise InvalidText(
            f"Calibration text {sources[0]!r} and evaluation text {sources[1]!r} share "
            f"{n_shared:,} sentences: give two different texts."
        )
