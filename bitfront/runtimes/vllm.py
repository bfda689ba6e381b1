"""vLLM, on its default device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from bitfront.runtimes.base import Logits, Runner, Tokens


@dataclass(frozen=True)
class Vllm(Runner):
    """The log-probabilities of prompts that `vllm.LLM` reports, in the dtype of the checkpoint."""

    package: ClassVar[str] = "vllm"

    def logits(self, folder: Path, tokens: Tokens) -> Logits:
        """Log-probabilities after each token but the last, `[n, length - 1, vocabulary]`."""
        from vllm import LLM, SamplingParams

        model = LLM(
            str(folder),
            max_model_len=2 * tokens.shape[1],
            enforce_eager=True,
            max_logprobs=-1,
            trust_remote_code=False,
        )
        wanted = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=-1)
        prompts = [{"prompt_token_ids": row} for row in tokens.tolist()]
        told = [answer.prompt_logprobs[1:] for answer in model.generate(prompts, wanted)]
        n_words = 1 + max(max(position) for row in told for position in row)
        said = np.full((len(told), tokens.shape[1] - 1, n_words), -np.inf, dtype=np.float32)
        for row, positions in enumerate(told):
            for position, words in enumerate(positions):
                for word, each in words.items():
                    said[row, position, word] = each.logprob
        return said
