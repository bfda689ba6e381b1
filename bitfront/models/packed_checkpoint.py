"""How transformers loads the packed checkpoint: `quant_method` "bitfront" in config.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from bitfront import formats
from bitfront.errors import InvalidModel
from bitfront.formats.base import Format
from bitfront.models.experts import expert_modules, separate_experts
from bitfront.models.matrices import as_stored
from bitfront.models.quant_linear import (
    QuantEmbedding,
    TiedHead,
    join_siblings,
    packed_like,
)
from bitfront.models.registration import register_with_transformers

QUANT_METHOD = "bitfront"


class BitfrontConfig(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is untyped
    """The `quantization_config` of a packed checkpoint.

    Args:
        formats: format name of each quantized layer.
        siblings: names of layers that read one tensor, which a GPU multiplies in one launch.
        quant_method: always `"bitfront"`.
        kv_cache: `"formats"` of keys and values by layer name, and the fields of `KVCache` as
            `"cache"`, for `PackedCache.of`; `None` where the cache was not searched.
        base: source, digest and bytes of the model that these are offsets to; `None` of a whole
            model.

    Raises:
        InvalidModel: `formats` is not that.
    """

    def __init__(
        self,
        formats: Mapping[str, str] | None = None,
        siblings: Iterable[Sequence[str]] = (),
        quant_method: str = QUANT_METHOD,
        kv_cache: Mapping[str, Any] | None = None,
        base: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(formats, Mapping) or not all(
            isinstance(f, str) for f in formats.values()
        ):
            raise InvalidModel(
                "quantization_config in config.json must have the name of a format for each layer "
                "as formats: export the checkpoint again."
            )
        self.quant_method = quant_method
        self.formats: dict[str, str] = dict(formats)
        self.siblings = [list(names) for names in siblings]
        if kv_cache is not None:
            self.kv_cache = dict(kv_cache)
        if base is not None:
            self.base = dict(base)


class BitfrontQuantizer(HfQuantizer):  # type: ignore[misc]
    """Puts packed layers into the empty model, so that weights load straight into them."""

    requires_calibration = True

    def _process_model_before_weight_loading(
        self, model: nn.Module, checkpoint_files: Iterable[str] | None = None, **_: object
    ) -> None:
        if base := getattr(self.quantization_config, "base", None):
            raise InvalidModel(
                f"This folder has only offsets to {base.get('source')}: load it with "
                "bitfront.models.offset.load_offset(folder)."
            )
        chosen, siblings = self.quantization_config.formats, self.quantization_config.siblings
        modules = dict(model.named_modules())
        if any(name not in modules for name in chosen):
            separate_experts(model)
            modules = dict(model.named_modules())
        for name in (*chosen, *(name for names in siblings for name in names)):
            if name not in modules:
                wanted = (getattr(model.config, "architectures", None) or [""])[0]
                is_other = wanted not in ("", type(model).__name__)
                advice = f"load it as {wanted}" if is_other else "export the checkpoint again"
                raise InvalidModel(
                    f"config.json names layer {name!r}, which {type(model).__name__} lacks: "
                    f"{advice}."
                )
        for name, format in chosen.items():
            if format != "bf16":  # stored as the module's own weight
                replace_with_packed(model, name, formats.named(format))
        join_siblings(model, siblings)
        if checkpoint_files is not None:
            check_tensors(model, chosen, checkpoint_files)

    def update_weight_conversions(self, weight_conversions: list[Any], model: nn.Module) -> Any:
        """None where experts are separate: tensors have the names of the modules already."""
        if expert_modules(model):
            return []
        return super().update_weight_conversions(weight_conversions, model)

    def is_serializable(self) -> bool:
        """Copy the folder, or export again: `save_pretrained` is not offered."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Packed weights have no gradient."""
        return False


def packed_tensors(module: nn.Module, tensors: Mapping[str, Any], format: str) -> dict[str, Any]:
    """Tensors of one layer as the checkpoint stores them, by their name within the module.

    Those of the format, but for bf16: that is the weight as the module itself lays it out.
    """
    if format == "bf16":
        return {"weight": as_stored(module, tensors["weight"]).contiguous()}
    return dict(tensors)


def check_tensors(model: nn.Module, chosen: Mapping[str, str], files: Iterable[str]) -> None:
    """Hold a checkpoint to what layers are stored as: transformers would make up what it lacks.

    Args:
        model: with packed layers.
        chosen: format name of each layer.
        files: of the checkpoint.

    Raises:
        InvalidModel: names the first tensor that is missing or of another shape.
    """
    found: dict[str, list[int]] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    for layer, format in chosen.items():
        for part, tensor in model.get_submodule(layer).state_dict().items():
            name, shape = f"{layer}.{part}", list(tensor.shape)
            if found.get(name) != shape:
                has = f"has {found[name]} as" if name in found else "lacks"
                raise InvalidModel(
                    f"The checkpoint {has} {name}, a tensor of shape {shape} in format {format}: "
                    "export it again."
                )


def replace_with_packed(model: nn.Module, name: str, format: Format) -> None:
    """Put an empty packed layer, and the head that is tied to it, in the place of a layer."""
    module = model.get_submodule(name)
    packed = packed_like(module, format)
    tied: dict[str, str] = model.all_tied_weights_keys  # type: ignore[assignment]
    model.set_submodule(name, packed)
    for target in [t for t, source in tied.items() if source == f"{name}.weight"]:
        head = target.removesuffix(".weight")
        if isinstance(packed, QuantEmbedding):
            model.set_submodule(head, TiedHead(packed, model.get_submodule(head).bias))  # type: ignore[arg-type]
        del tied[target]


# When this file is imported before transformers, registration found it half-imported and left.
register_with_transformers()
