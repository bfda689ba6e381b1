"""Runtime: what an engine of one version loads, and Runner: that engine asked for logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bitfront.formats.base import Format

Tokens = NDArray[np.int64]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Tolerance:
    """How far an engine's predictions may be from our own; its arithmetic is another.

    Args:
        mean_kl: KL(ours || engine) in nats, mean over tokens.
        max_kl: the same of the worst token.
        top1_agreement: share of tokens whose most likely next token is the same, at least.
        float32_vectors: whether the checkpoint has norms and biases in float32, not bfloat16.
    """

    mean_kl: float
    max_kl: float
    top1_agreement: float
    float32_vectors: bool = False


@dataclass(frozen=True)
class Rule:
    """Formats under one set of conditions.

    Args:
        names: patterns of format names, such as `"int[2-8]_*_sym"`.
        fused: whether layers that the engine fuses with others may have them.
        together: patterns of those that layers of a module that is one kernel (experts) may have.
        row_multiple: what the rows that one rank holds are a multiple of.
        column_multiple: what the columns that one rank holds are a multiple of.
        word_bits: where columns are spread over ranks, the codes of the row that one rank holds
            are a multiple of so many bits.
    """

    names: tuple[str, ...]
    fused: bool = True
    together: tuple[str, ...] = ("*",)
    row_multiple: int = 1
    column_multiple: int = 1
    word_bits: int = 1


@dataclass(frozen=True)
class Runtime:
    """What an engine of one version loads.

    Args:
        name: of the profile.
        engine: what runs it: a name of `RUNNERS`.
        versions: of the engine that the profile was read from, such as `">=0.33,<0.34"`.
        exporter: writes its checkpoints, with parameters.
        loads: tolerance of `bitfront check` by exporter whose checkpoints it can load.
        rules: formats of the searched layers; the first rule that names a format holds.
        menu: formats that a study has unless it names others.
        pinned: patterns of the formats of embedding and head; the first one is the default.
        fused: names of layers of one parent that the engine makes one kernel of.
        together: names of modules all of whose linears are one kernel (experts).
        row_parallel: names of layers whose columns are spread over ranks; other layers' rows are.
        replicated: names of layers that every rank may hold whole.
        max_tensor_parallel: largest number of ranks.
        architectures: `model_type` of the models that it and its exporter know; empty for any.
        activation_block: columns of an activation that it rounds to 8 bits with one scale before it
            multiplies by a quantized weight; 0 where it does not.
        only_linear: whether it loads quantized weights into `nn.Linear` alone.
        tensor_parallel: number of ranks that the weights are spread over.
    """

    name: str
    engine: str
    versions: str
    exporter: str
    loads: Mapping[str, Tolerance]
    rules: tuple[Rule, ...]
    menu: tuple[str, ...]
    pinned: tuple[str, ...]
    fused: tuple[tuple[str, ...], ...] = ()
    together: tuple[str, ...] = ()
    row_parallel: tuple[str, ...] = ()
    replicated: tuple[str, ...] = ()
    max_tensor_parallel: int = 1
    architectures: tuple[str, ...] = ()
    activation_block: int = 0
    only_linear: bool = False
    tensor_parallel: int = 1

    def rule(self, format: str) -> Rule | None:
        """Conditions of a format; `None` where no layer can have it."""
        for rule in self.rules:
            if _is_named(format, rule.names):
                return rule
        return None

    def pins(self, format: str) -> bool:
        """Whether embedding and head can have a format."""
        return _is_named(format, self.pinned)

    def kernel(self, layer: str) -> str:
        """What tells the kernel of a layer from others: layers of one kernel share a format."""
        parts = layer.split(".")
        if module := self.module_together(layer):
            return module
        for names in self.fused:
            if parts[-1] in names:
                return ".".join((*parts[:-1], "+".join(names)))
        return layer

    def module_together(self, layer: str) -> str:
        """Module around a layer all of whose linears are one kernel; empty for none."""
        parts = layer.split(".")
        for index, part in enumerate(parts[:-1]):
            if part in self.together:
                return ".".join(parts[: index + 1])
        return ""

    def splits_columns(self, layer: str) -> bool:
        """Whether ranks hold columns of a layer, not rows."""
        return self.tensor_parallel > 1 and layer.rpartition(".")[2] in self.row_parallel

    def divides(self, layer: str, shape: tuple[int, int]) -> bool:
        """Whether a layer spreads evenly over the ranks, in any format."""
        if layer.rpartition(".")[2] in self.replicated:
            return True
        size = shape[1 if self.splits_columns(layer) else 0]
        # Gate and up of an expert are one layer here and are spread each by itself.
        n_parts = 2 if self.module_together(layer) and layer.endswith(".gate_up_proj") else 1
        return size % (n_parts * self.tensor_parallel) == 0

    def allows(self, format: Format, layer: str, shape: tuple[int, int], is_fused: bool) -> bool:
        """Whether a layer may have a format.

        Args:
            format: any.
            layer: its name.
            shape: `(out_features, in_features)` of the whole layer, before it is spread.
            is_fused: whether other layers share its kernel.
        """
        rule = self.rule(format.name)
        if rule is None or (is_fused and not rule.fused):
            return False
        if self.module_together(layer) and not _is_named(format.name, rule.together):
            return False
        rows, columns = shape
        if self.splits_columns(layer):
            columns //= self.tensor_parallel
            if columns * format.num_bits % rule.word_bits:
                return False
        elif layer.rpartition(".")[2] not in self.replicated:
            rows //= self.tensor_parallel
        has_whole_groups = format.group_columns is None or columns % format.group_columns == 0
        is_multiple = rows % rule.row_multiple == 0 and columns % rule.column_multiple == 0
        return has_whole_groups and is_multiple

    def refused(
        self, layers: Mapping[str, tuple[int, int]], formats: Iterable[Format]
    ) -> frozenset[tuple[str, str]]:
        """Layers with the name of a format that fits their shape but that they may not have.

        Args:
            layers: shape of every searched layer of a model, by name.
            formats: a menu.
        """
        sizes = Counter(map(self.kernel, layers))
        menu = tuple(formats)
        return frozenset(
            (layer, format.name)
            for layer, shape in layers.items()
            for format in menu
            if format.fits(shape)
            and not self.allows(format, layer, shape, sizes[self.kernel(layer)] > 1)
        )


class Runner(ABC):
    """An engine that computes logits. Subclasses are frozen dataclasses.

    Engines are imported within the methods: they run in a process of their own, and a machine
    without them knows their profiles all the same.
    """

    package: ClassVar[str]
    """Of PyPI; its version is the engine's."""

    @abstractmethod
    def logits(self, folder: Path, tokens: Tokens) -> Logits:
        """Logits, or log-probabilities, of the token after each, `[n, length, vocabulary]`.

        Where an engine tells the most likely words alone, those are log-probabilities, and all
        others minus infinity.

        Args:
            folder: a checkpoint.
            tokens: int64 `[n, length]`.
        """


def read(name: str, fields: Mapping[str, Any]) -> Runtime:
    """A profile from the fields of its TOML file; what is none raises what reading it raises."""
    made = {key: _frozen(value) for key, value in fields.items()}
    made["rules"] = tuple(Rule(**_frozen(rule)) for rule in fields["rules"])
    made["loads"] = {key: Tolerance(**each) for key, each in fields["loads"].items()}
    return Runtime(name=name, **made)


def _is_named(format: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(format, pattern) for pattern in patterns)


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(each) for each in value)
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    return value
