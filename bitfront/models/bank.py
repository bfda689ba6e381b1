"""WeightBank: every layer in every format, quantized once and kept on disk."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, MismatchedArtifact, NonFinite
from bitfront.files import replacing
from bitfront.formats import named
from bitfront.formats.base import Format
from bitfront.kernels.base import can_run_triton
from bitfront.kernels.weights import decoded
from bitfront.models.layers import get_weight
from bitfront.quantizers.base import Quantizer
from bitfront.quantizers.rtn import Rtn
from bitfront.space import Layer, SearchSpace

Tensors = dict[str, torch.Tensor]
_PROCESSOR = torch.device("cpu")
_ANEW = "run `bitfront search` again to build it anew"


@dataclass(frozen=True, eq=False)
class WeightBank:
    """The quantized weights of a space: a directory with one safetensors file per (layer, format).

    A file is named by the digest of all that decides its content: the weight, the behaviour of
    the format, the quantizer with its hyperparameters and version, and the input Gram matrix if
    the quantizer uses it. Studies can share a directory, and an entry made by another definition
    is never mistaken for this one. Reading maps files into memory and decodes on the fly.
    What a pair stores is the entry of its weight's format, and is found by either name.

    Args:
        directory: where the files are; `build` makes it.
        space: the layers (pinned ones included, caches left out) and formats held.
        entries: file digest of each `(layer name, name of a weight's format)`.
        base: model whose weights are taken away before quantizing and added to what is read;
            `None` where weights are quantized themselves.
    """

    directory: Path
    space: SearchSpace
    entries: Mapping[tuple[str, str], str]
    base: nn.Module | None = None

    @classmethod
    def build(
        cls,
        directory: Path | str,
        model: nn.Module,
        space: SearchSpace,
        quantizer: Quantizer,
        hessians: Mapping[str, torch.Tensor] | None = None,
        progress: Callable[[int, int], None] | None = None,
        used: Allocation | None = None,
        base: nn.Module | None = None,
    ) -> WeightBank:
        """Quantize what the directory lacks; broken files are made anew.

        Args:
            directory: shared by any number of studies.
            model: the unquantized model.
            space: what to quantize: every format that fits each layer, and the pinned layers.
            quantizer: how codes are chosen. A layer without a Gram matrix (an embedding reads
                rows, it has no input) or with one of zeros (an expert that saw no token) falls
                back to `rtn` when the quantizer needs one.
            hessians: float32 `[n_columns, n_columns]` by layer name: mean of x x^T; or what
                `Quantizer.quantize` takes instead. Read layer by layer in the order of the space,
                so a mapping that computes them lazily is fine.
            progress: called with `(entries done, entries in all)`.
            used: an allocation that is all that will be read; `None` for every entry.
            base: quantize differences from this model, on the same device.

        Raises:
            NonFinite: a weight or Gram matrix holds NaN or infinity.
            StorageError: a file could not be written; no partial file is left.
        """
        directory = Path(directory)
        wanted = list(_wanted(space))
        behaviour = {f: format_digest(f) for f in {f for _, menu in wanted for f in menu}}
        total, entries = sum(len(menu) for _, menu in wanted), {}
        for layer, menu in wanted:
            weight = _without(base, layer.name, get_weight(model, layer.name)).contiguous()
            hessian = (hessians or {}).get(layer.name) if quantizer.needs_hessian else None
            if (
                isinstance(hessian, torch.Tensor) and not hessian.any()
            ):  # an expert that saw no token
                hessian = None
            chosen = Rtn() if quantizer.needs_hessian and hessian is None else quantizer
            inputs = _tensors_digest(
                {"weight": weight} | ({} if hessian is None else {"h": hessian})
            )
            for format in menu:
                digest = _text_digest(inputs, behaviour[format], f"{chosen!r} {chosen.version}")
                path = _path(directory, digest)
                is_used = used is None or _of_weight(used.formats.get(layer.name)) == format.name
                if is_used and not _intact(path, format, layer.shape):
                    _write(path, _quantized(layer, chosen, weight, format, hessian))
                entries[layer.name, format.name] = digest
                if progress:
                    progress(len(entries), total)
        return cls(directory, space, entries, base)

    @cached_property
    def digest(self) -> str:
        """Digest of all entries: equal only for equal weights, formats and quantizer."""
        return _text_digest(*(f"{key} {self.entries[key]}" for key in sorted(self.entries)))

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        return {layer.name: layer.shape for layer, _ in _wanted(self.space)}

    @cached_property
    def _formats(self) -> dict[str, Format]:
        """Formats of weights, by their own names and by those of pairs."""
        menu = (*self.space.formats, *(f for _, f in self.space.pinned))
        return {x.name: f.weight_format for f in menu for x in (f, f.weight_format)}

    def stored_as(self, format: str) -> str:
        """Name of the format whose entry a format has: of a pair that of its weight."""
        known = self._formats.get(format)
        return format if known is None else known.name

    def tensors(self, layer: str, format: str) -> Tensors:
        """Packed tensors of a layer, as stored, mapped into memory.

        Raises:
            InvalidArgument: the bank has no such layer or the format does not fit it.
            MismatchedArtifact: the file was removed or damaged since the bank was built.
        """
        path = self._path(layer, format)
        try:
            return _read(path)
        except (OSError, SafetensorError) as error:
            raise MismatchedArtifact(
                f"Bank entry {path} of layer {layer!r} cannot be read ({error}): {_ANEW}."
            ) from error

    def check(self, allocation: Allocation) -> None:
        """Check that the files of an allocation are whole and unchanged.

        Raises:
            InvalidArgument: the bank has no such layer or the format does not fit it.
            MismatchedArtifact: names a file that is missing or damaged.
        """
        for layer, format in allocation.formats.items():
            if self.space.is_cache(layer):
                continue
            path = self._path(layer, format)
            if not _intact(path, self._formats[format], self._shapes[layer]):
                raise MismatchedArtifact(
                    f"Bank entry {path} of layer {layer!r} is missing or damaged: {_ANEW}."
                )

    def _path(self, layer: str, format: str) -> Path:
        key = layer, self.stored_as(format)
        if key not in self.entries:
            held = ", ".join(f for name, f in self.entries if name == layer) or "no format"
            raise InvalidArgument(
                f"The bank holds {held} of layer {layer!r}, not {format!r}: "
                "build it for a space with this format."
            )
        return _path(self.directory, self.entries[key])

    def source(self, layer: str, weight: torch.Tensor) -> torch.Tensor:
        """What is quantized of a weight `[out_features, in_features]` of the model, float32."""
        return _without(self.base, layer, weight)

    def weight(self, layer: str, format: str, device: torch.device = _PROCESSOR) -> torch.Tensor:
        """Decoded weight, added to that of the base, float32 `[out_features, in_features]`.

        Args:
            layer: name of the layer.
            format: name of the format.
            device: where the weight shall be. On a GPU it is decoded there, so that what crosses
                to it are the packed tensors.
        """
        made = self._decoded(layer, format, device)
        return made if self.base is None else made + get_weight(self.base, layer).to(made)

    def _decoded(self, layer: str, format: str, device: torch.device) -> torch.Tensor:
        stored, chosen, shape = (
            self.tensors(layer, format),
            self._formats[format],
            self._shapes[layer],
        )
        if not (chosen.scaled and can_run_triton(device)):
            return chosen.decode_stored(stored, shape).to(device)
        return decoded(chosen, {k: stored[k].to(device) for k in chosen.stored(shape)}, shape)


def _without(base: nn.Module | None, layer: str, weight: torch.Tensor) -> torch.Tensor:
    weight = weight.float()
    return weight if base is None else weight - get_weight(base, layer).to(weight)


def _wanted(space: SearchSpace) -> Iterator[tuple[Layer, tuple[Format, ...]]]:
    for layer, allowed in zip(space.layers, space.allowed, strict=True):
        if not layer.cache:
            menu = (f.weight_format for f, may in zip(space.formats, allowed, strict=True) if may)
            yield layer, tuple(dict.fromkeys(menu))
    for layer, format in space.pinned:
        yield layer, (format,)


def _of_weight(format: str | None) -> str | None:
    return None if format is None else named(format).weight_format.name


def _quantized(
    layer: Layer,
    quantizer: Quantizer,
    weight: torch.Tensor,
    format: Format,
    hessian: torch.Tensor | None,
) -> Tensors:
    try:
        # Rounding is many short operations. Two threads that wait for each other at every one of
        # them take 5 times the processor time of one as soon as the machine has other work.
        with threads(torch.get_num_threads() if quantizer.needs_hessian else 1):
            return quantizer.quantize(weight, format, hessian).tensors()
    except NonFinite as error:
        raise NonFinite(f"Layer {layer.name!r}: {error}") from error


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch operations on `n` threads of the processor within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _path(directory: Path, digest: str) -> Path:
    # Two levels: a directory of a large model's 45,000 x 6 files is slow to list.
    return directory / digest[:2] / f"{digest}.safetensors"


def _read(path: Path) -> Tensors:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _write(path: Path, tensors: Tensors) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, {"checksum": _checksum(tensors)}))


def _intact(path: Path, format: Format, shape: tuple[int, int]) -> bool:
    """Whether a file is whole, unchanged since it was written, and of the format's layout."""
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            checksum = (file.metadata() or {}).get("checksum")
        tensors = _read(path)
    except (OSError, SafetensorError):
        return False
    layout = {k: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for k, t in tensors.items()}
    expected = {k: (s.shape, s.dtype) for k, s in format.stored(shape).items()}
    return layout == expected and checksum == _checksum(tensors)


def format_digest(format: Format) -> str:
    """Digest of what a format does to one fixed weight: a name can hide a changed definition."""
    columns = format.telling_columns
    weight = ((torch.arange(8 * columns) * 37 % 101 - 50) / 64).reshape(8, columns)
    qparams = format.qparams(weight)
    stored = format.pack(format.encode(weight, qparams), qparams)
    made = stored | {"decoded": format.decode_stored(stored, (8, columns))}
    if format.input_format is not None:
        made["inputs"] = format.input_format.rounded(weight.reshape(-1)[:128])
    return _text_digest(repr(format), _tensors_digest(made))


def _checksum(tensors: Tensors) -> str:
    # Against damage only; what an entry is for is in its name, and this is ten times as fast.
    return str([zlib.crc32(_bytes(tensors[name])) for name in sorted(tensors)])


def _tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    # BLAKE2 because it is twice as fast as SHA-256 where the processor has no SHA instructions.
    blake = hashlib.blake2b(digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        blake.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        blake.update(_bytes(tensor))
    return blake.hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data


def _text_digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=32).hexdigest()
