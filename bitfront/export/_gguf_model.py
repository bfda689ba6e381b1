"""What llama.cpp must know of a model: hyperparameters, tensor names, order of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidModel
from bitfront.export._gguf_tensors import GgufTensor

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""Architecture in llama.cpp by `model_type` of the configuration."""


@dataclass(frozen=True)
class GgufModel:
    """A model in the words of llama.cpp.

    Args:
        config: configuration of transformers.
        architecture: the same model in llama.cpp.
    """

    config: Any
    architecture: gguf.MODEL_ARCH

    @classmethod
    def of(cls, config: Any) -> GgufModel:
        """Read a configuration.

        Raises:
            InvalidModel: an architecture, activation, attention or rotation that is not written.
        """
        family = config.model_type
        if family not in ARCHITECTURES:
            raise InvalidModel(
                f"A model of type {family!r} cannot be written as GGUF, only "
                f"{', '.join(ARCHITECTURES)}: export with packed or fake_quant."
            )
        rope = _rope(config)["rope_type"]
        windowed = getattr(config, "use_sliding_window", True)
        window = getattr(config, "sliding_window", None) if windowed else None
        if window is not None and window >= config.max_position_embeddings:
            window = None  # never reached
        for what, value, allowed in (
            ("hidden_act", config.hidden_act, ("silu",)),
            ("rope_type", rope, ("default", "linear", "llama3")),
            ("sliding_window", window, (None,)),
        ):
            if value not in allowed:
                raise InvalidModel(
                    f"{what} is {value!r} in this {family} model, and GGUF is written for "
                    f"{' or '.join(map(str, allowed))} only: export with packed or fake_quant."
                )
        return cls(config, ARCHITECTURES[family])

    @property
    def name(self) -> str:
        """Of the architecture, such as `"llama"`."""
        return str(gguf.MODEL_ARCH_NAMES[self.architecture])

    def tensor_name(self, name: str) -> str:
        """Name of a tensor in a GGUF file, such as `blk.0.attn_q.weight`.

        Raises:
            InvalidModel: llama.cpp has no such tensor in this architecture.
        """
        module, _, kind = name.rpartition(".")
        found = self._names.get_name(module)
        if found is None:
            raise InvalidModel(
                f"Tensor {name!r} has no place in a GGUF file of architecture {self.name!r}: "
                "export with packed or fake_quant."
            )
        return f"{found}.{kind}"

    def tensor(
        self,
        name: str,
        kind: gguf.GGMLQuantizationType,
        shape: tuple[int, ...],
        make: Callable[[], NDArray[np.uint8]],
    ) -> GgufTensor:
        """A tensor of the model as llama.cpp has it: by its name and order of rows.

        llama.cpp rotates neighbouring rows of a head in its architecture `llama`, where
        transformers rotates its first half against its second.

        Args:
            name: in transformers.
            kind: type in the file.
            shape: of the numbers.
            make: its bytes row by row, in the order of transformers.
        """
        heads = {"q_proj": self.config.num_attention_heads, "k_proj": self._n_kv_heads}
        part = name.split(".")[-2]
        if self.name == "llama" and part in heads:
            rows = np.arange(shape[0]).reshape(heads[part], 2, -1)
            order = rows.swapaxes(1, 2).reshape(-1)
            return GgufTensor(
                self.tensor_name(name), kind, shape, lambda: make().reshape(shape[0], -1)[order]
            )
        return GgufTensor(self.tensor_name(name), kind, tuple(shape), make)

    @cached_property
    def _names(self) -> gguf.TensorNameMap:
        return gguf.get_tensor_name_map(self.architecture, self.config.num_hidden_layers)

    @property
    def _n_kv_heads(self) -> int:
        n_heads = self.config.num_attention_heads
        return int(getattr(self.config, "num_key_value_heads", None) or n_heads)

    @property
    def _head_dim(self) -> int:
        each = self.config.hidden_size // self.config.num_attention_heads
        return int(getattr(self.config, "head_dim", None) or each)

    def add_fields(self, writer: gguf.GGUFWriter) -> None:
        """Write the hyperparameters."""
        config, rope = self.config, _rope(self.config)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(self._n_kv_heads)
        writer.add_key_length(self._head_dim)
        writer.add_value_length(self._head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(self._head_dim)
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_vocab_size(config.vocab_size)
        if rope["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])

    def extra(self) -> Iterator[GgufTensor]:
        """Tensors of the file that the model has as numbers of its configuration."""
        rope = _rope(self.config)
        if rope["rope_type"] == "llama3":
            factors = _llama3_factors(rope, self._head_dim)
            yield GgufTensor(
                "rope_freqs.weight",
                gguf.GGMLQuantizationType.F32,
                factors.shape,
                lambda: factors.view(np.uint8),
            )


def _rope(config: Any) -> dict[str, Any]:
    given = getattr(config, "rope_parameters", None) or {}
    return {"rope_type": "default", "rope_theta": 10000.0, **given}


def _llama3_factors(rope: dict[str, Any], head_dim: int) -> NDArray[np.float32]:
    """Divisor of each rotation frequency, float32 `[head_dim / 2]`.

    Wavelengths beyond the original context over `low_freq_factor` are stretched by `factor`, those
    below it over `high_freq_factor` are kept, between them the inverse is interpolated (Llama 3.1).
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    wavelengths = 2 * math.pi * rope["rope_theta"] ** exponents
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] / wavelengths
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: NDArray[np.float64] = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return factors.astype(np.float32)
