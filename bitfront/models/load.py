"""Loading a model: a folder, a hub id or a GGUF file; weights that cannot run code, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from bitfront.errors import (
    InvalidArgument,
    InvalidModel,
    NonFinite,
    first_line,
)
from bitfront.models import weight_files
from bitfront.models.downloads import downloaded
from bitfront.models.image_text import ImageText
from bitfront.models.images import image_reader
from bitfront.models.sentences import is_sentence_encoder, pooling_of
from bitfront.models.tasks import ImageClassification, set_task, task_named, task_of
from bitfront.models.timm_models import check_timm
from bitfront.seeing import TIMM, config_of, is_timm

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
AUTO_CLASSES: dict[str, Any] = {
    "text": transformers.AutoModelForCausalLM,
    "images": transformers.AutoModelForImageClassification,
    "sentences": transformers.AutoModel,
    "image-text": transformers.AutoModelForImageTextToText,
}
"""How transformers loads a model of each task."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in evaluation mode with what feeds it.

    Args:
        module: the model.
        tokenizer: its tokenizer, which may have ids that no row of the embedding is for, or its
            image processor.
        digest: SHA-256 of configuration, tensor names and stored weights; not of paths or names.
        source: what the user gave.
        base: what it was fine-tuned from, where differences are to be quantized.
    """

    module: nn.Module
    tokenizer: Any
    digest: str
    source: str
    base: LoadedModel | None = None

    @property
    def base_module(self) -> nn.Module | None:
        """The model that differences are taken from."""
        return self.base.module if self.base is not None else None

    @property
    def n_rows(self) -> int:
        """Rows of the embedding: how many token ids the model knows; 0 where it is fed none."""
        return 0 if isinstance(task_of(self.module), ImageClassification) else _n_rows(self.module)


def load_model(
    source: str,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    task: str = "auto",
) -> LoadedModel:
    """Load a local folder, a hub id, or a GGUF file; safetensors or GGUF only, never remote code.

    Args:
        source: where the model is.
        revision: branch, tag or commit of a hub model.
        dtype: `"float32"`, `"bfloat16"` or `"auto"` (see `compute_dtype`).
        device: `"cpu"`, `"cuda"` or `"auto"`.
        task: what it is for, as in a study.

    Raises:
        InvalidArgument: no CUDA device, but asked for; or Pillow is missing, for images.
        InvalidModel: missing, incomplete, corrupt, pickled, already quantized, in need of code
            of its own, or with a tokenizer that does not match.
        NonFinite: NaN or infinity in a weight.
    """
    device, chosen = placed(device, dtype)
    path = local_path(source) or downloaded(source, revision)
    with quiet():
        if path.is_file():
            module, tokenizer = _from_gguf(path, source, chosen)
        else:
            module, tokenizer = _from_folder(path, source, chosen, task)
    _check_finite(module, source)
    if not isinstance(task_of(module), ImageClassification):
        _check_tokenizer(module, tokenizer, source)
    return LoadedModel(module.to(device).eval(), tokenizer, weight_files.digest(path), source)


def placed(device: str, dtype: str) -> tuple[str, torch.dtype]:
    """The device and the dtype that `load_model` takes for these names.

    Raises:
        InvalidArgument: no CUDA device, but asked for.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidArgument(
            f"device {device!r}: torch finds no CUDA device here; use cpu or auto."
        )
    return device, compute_dtype(device) if dtype == "auto" else getattr(torch, dtype)


def compute_dtype(device: str) -> torch.dtype:
    """Fastest dtype that keeps candidates in order: bfloat16 where the hardware multiplies it.

    That is CUDA, and processors with AMX or AVX512-BF16; elsewhere a CPU emulates bfloat16, slower
    than float32.
    """
    if device != "cpu":
        return torch.bfloat16
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def local_path(source: str) -> Path | None:
    """The folder or GGUF file that `source` names, `None` where it can only be a hub id.

    Raises:
        InvalidModel: neither.
    """
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.is_file():
        raise InvalidModel(
            f"{source} is a {path.suffix or 'plain'} file: "
            "give a model folder, a hub id, or a .gguf file."
        )
    if path.suffix == ".gguf" or source.count("/") > 1 or source.startswith(("/", ".", "~")):
        raise InvalidModel(f"No model at {source}: give a folder, a hub id, or a .gguf file.")
    return None


def _from_folder(path: Path, source: str, dtype: torch.dtype, task: str) -> tuple[nn.Module, Any]:
    config = _checked_config(path, source)
    weight_files.check(path)
    kind = task if task != "auto" else _kind(path, config)
    check_timm(config, source)
    images = kind == "images"
    tokenizer = image_reader(path, source, config) if images else load_tokenizer(path, source)
    try:
        module, found = AUTO_CLASSES[kind].from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,  # the default, None, asks on the terminal
        )
    except Exception as error:
        raise InvalidModel(f"Cannot load {source}: {first_line(error)}.") from error
    missing = sorted(found["missing_keys"])
    give_task(module, kind, path)
    if kind == "sentences":
        # Nothing reads what transformers calls the pooler, and many encoders come without.
        if any(name.startswith("pooler.") for name in missing):
            module.pooler = None
        missing = [name for name in missing if not name.startswith("pooler.")]
    if missing:
        raise InvalidModel(
            f"{source} lacks {len(missing)} tensors, first {missing[0]!r}: download it again."
        )
    return module, tokenizer


def give_task(module: nn.Module, kind: str, folder: Path) -> None:
    """Tell a model its task where its class does not.

    Args:
        module: the model.
        kind: name of the task.
        folder: of the model; says how an encoder pools.

    Raises:
        InvalidModel: images of an unknown layout.
    """
    if kind == "image-text":
        set_task(module, ImageText.of(module.config))
    if kind == "sentences":
        set_task(module, pooling_of(folder))


def _kind(path: Path, config: Mapping[str, Any]) -> str:
    """Name of the task of a model folder."""
    return "sentences" if is_sentence_encoder(path) else task_named(config)


def _from_gguf(path: Path, source: str, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    folder, name = path.parent, path.name
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, gguf_file=name, trust_remote_code=False
        )
        with redirect_stderr(StringIO()):  # a progress bar that has no switch
            module = transformers.AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=name, dtype=dtype, trust_remote_code=False
            )
    except Exception as error:
        raise InvalidModel(f"Cannot read {source} as GGUF: {first_line(error)}.") from error
    # The weights are plain floats now; these marks would make `save_pretrained` refuse.
    module.hf_quantizer, module.is_quantized, module.quantization_method = None, False, None
    if hasattr(module.config, "quantization_config"):
        del module.config.quantization_config
    return module, tokenizer


def _checked_config(path: Path, source: str) -> dict[str, Any]:
    config = config_of(path, source)
    family = TIMM if is_timm(config) else config.get("model_type")
    if not isinstance(family, str) or family not in transformers.CONFIG_MAPPING:
        own_code = (
            " and wants to run code of its own, which stays off" if "auto_map" in config else ""
        )
        raise InvalidModel(
            f"{source} is of type {family!r}, unknown to transformers "
            f"{transformers.__version__}{own_code}: use a model that transformers has."
        )
    quantized = config.get("quantization_config") or {}
    if not isinstance(quantized, dict):
        raise InvalidModel(
            f"quantization_config in config.json of {source} is {quantized!r}, not an object: "
            "give the unquantized model."
        )
    if quantized:
        raise InvalidModel(
            f"{source} is already quantized ({quantized.get('quant_method')}): "
            "give the unquantized model."
        )
    return config


def load_tokenizer(path: Path, source: str) -> Any:
    """The tokenizer of a folder; `source` is what errors call it.

    Raises:
        InvalidModel: there is none, or it cannot be loaded.
    """
    # Without its files transformers may build an empty tokenizer instead of failing.
    if not any((path / name).exists() for name in _TOKENIZER_FILES):
        raise InvalidModel(
            f"{source} has no tokenizer: "
            f"put one of {', '.join(_TOKENIZER_FILES)} beside the weights."
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        raise InvalidModel(
            f"Cannot load the tokenizer of {source}: {first_line(error)}."
        ) from error


def _check_finite(module: nn.Module, source: str) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise NonFinite(f"{source} has NaN or infinity in {name!r}: the file is damaged.")


def _check_tokenizer(module: nn.Module, tokenizer: Any, source: str) -> None:
    # Ids without a row are no fault before a text has one: gemma-3-1b-it has one of an image.
    n_rows = _n_rows(module)
    ids = set(tokenizer.get_vocab().values())
    # Embeddings are padded to round numbers and for tokens to come, but not to twice the size.
    if 2 * len(ids) < n_rows:
        raise InvalidModel(
            f"The tokenizer of {source} knows {len(ids)} ids, its embedding has {n_rows} rows: "
            "they belong to different models."
        )


def _n_rows(module: nn.Module) -> int:
    language_model: Any = module
    return int(language_model.get_input_embeddings().weight.shape[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Progress bars and notices of transformers off inside the block: errors say what matters."""
    from transformers.utils import logging as notices

    verbosity, bars = notices.get_verbosity(), notices.is_progress_bar_enabled()
    notices.set_verbosity(notices.CRITICAL)
    notices.disable_progress_bar()
    try:
        yield
    finally:
        notices.set_verbosity(verbosity)
        if bars:
            notices.enable_progress_bar()
