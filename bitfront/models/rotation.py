"""Rotary embedding of keys, applied and taken back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitfront.errors import InvalidModel
from bitfront.models.image_text import language_modules


@dataclass(frozen=True, eq=False)
class Rotation:
    """The rotary embedding of a model, by halves, as GPT-NeoX lays it out (Su et al., RoFormer).

    Args:
        module: gives cosines and sines `[1, n_tokens, n_rotated]` of positions.
    """

    module: nn.Module

    @classmethod
    def of(cls, model: nn.Module) -> Rotation:
        """That of a model, or of the language model in one that sees.

        Raises:
            InvalidModel: it has none, or several.
        """
        modules = language_modules(model)
        found = [m for m in modules if isinstance(getattr(m, "inv_freq", None), Tensor)]
        if len(found) != 1:
            raise InvalidModel(
                f"{type(model).__name__} has {len(found)} rotary embeddings, not one: "
                "leave out pre_rope."
            )
        return cls(found[0])

    def turned(self, keys: Tensor, first: int = 0, back: bool = False) -> Tensor:
        """Keys after their rotation, or as they were before it.

        Args:
            keys: float32 `[n, n_heads, n_tokens, head_dim]`.
            first: position of the first token.
            back: take the rotation back.
        """
        n_tokens = keys.shape[2]
        positions = torch.arange(first, first + n_tokens, device=keys.device)[None]
        cosine, sine = self.module(keys, positions)
        n_rotated = cosine.shape[-1]
        turning, rest = keys[..., :n_rotated], keys[..., n_rotated:]
        first_half, second_half = turning.chunk(2, dim=-1)
        across = torch.cat([-second_half, first_half], dim=-1)
        turned = turning * cosine[:, None] + across * (-sine if back else sine)[:, None]
        if back:  # some models stretch as they turn
            turned = turned / (cosine.square() + sine.square())[:, None]
        return torch.cat([turned, rest], dim=-1)
