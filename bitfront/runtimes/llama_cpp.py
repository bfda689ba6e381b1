"""llama.cpp through xllamacpp: GGUF checkpoints, on the CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bitfront.runtimes.base import Logits, Runner, Tokens

_N_TOLD = 1024


@dataclass(frozen=True)
class LlamaCpp(Runner):
    """The server of llama.cpp, asked for one token after every beginning of each sequence.

    It tells the most likely words alone: all 49,152 of a vocabulary took 3 s a token, 1,024 of them
    0.1 s.
    """

    package: ClassVar[str] = "xllamacpp"

    def logits(self, folder: Path, tokens: Tokens) -> Logits:
        """Log-probabilities after each token, `[n, length, vocabulary]`."""
        import xllamacpp

        path = folder / "model.gguf"
        vocabulary = _vocabulary(path)
        # Half a character is not told: a whole one is forced, which changes no probability told.
        letter = next(i for i, word in enumerate(vocabulary) if len(word) == 1 and word.isalpha())
        params = xllamacpp.CommonParams()
        params.model.path, params.warmup = str(path), False
        params.n_ctx, params.n_parallel = max(256, 2 * tokens.shape[1]), 1
        # Its threads spin while they wait: more than there are free cores take minutes for seconds.
        params.cpuparams.n_threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or -1
        # In float32, so that what is left of a difference is that of the weights.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        attention = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.flash_attn_type = attention
        server = xllamacpp.Server(params)
        said = np.full((*tokens.shape, len(vocabulary)), -np.inf, dtype=np.float32)
        for row, sequence in enumerate(tokens.tolist()):
            for position in range(len(sequence)):
                answer = server.handle_completions(
                    {
                        "prompt": sequence[: position + 1],
                        "n_predict": 1,
                        "n_probs": min(len(vocabulary), _N_TOLD),
                        "temperature": 0,
                        "logit_bias": [[letter, 1000.0]],
                    }
                )
                for each in _told(answer):
                    said[row, position, each["id"]] = each["logprob"]
        return said


def _told(answer: Any) -> Any:
    if "choices" not in answer:
        raise RuntimeError(f"llama.cpp answers {str(answer)[:200]}")
    return answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]


def _vocabulary(path: Path) -> list[str]:
    """Words of the tokenizer in a GGUF file, by id."""
    from gguf import GGUFReader

    words: list[str] = GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    return words
