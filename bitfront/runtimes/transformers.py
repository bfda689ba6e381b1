"""transformers: packed, fake-quant, compressed-tensors and GGUF checkpoints, on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from bitfront.runtimes.base import Logits, Runner, Tokens


@dataclass(frozen=True)
class Transformers(Runner):
    """The model that `from_pretrained` makes of the folder, in float32."""

    package: ClassVar[str] = "transformers"

    def logits(self, folder: Path, tokens: Tokens) -> Logits:
        """Logits after each token, `[n, length, vocabulary]`."""
        import torch
        from transformers import AutoModelForCausalLM

        file = {"gguf_file": "model.gguf"} if (folder / "model.gguf").exists() else {}
        module = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, **file
        ).eval()
        with torch.no_grad():
            rows = [module(torch.from_numpy(row)[None]).logits[0].float() for row in tokens]
        made: Logits = np.stack([row.numpy() for row in rows])
        return made
