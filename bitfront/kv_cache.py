"""KVCache: what a study asks of the cache of keys and values, and the bytes that follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.base import Format, group_shape

_POINT = re.compile(r"b([0-9]+)c([0-9]+)")


@dataclass(frozen=True)
class KVCache:
    """Formats that keys and values of each block may take while a model decodes.

    Of the tokens in the cache the first `sinks` and at least the last `window` stay at 16 bits.
    Between them a value is quantized token by token, in groups along its channels (all heads of the
    block, one after the other); keys are quantized channel by channel in groups of tokens, each
    group as soon as all its tokens have left the window. `bf16` leaves a cache at 16 bits.

    Source: Liu et al., KIVI (2024), section 3.2 (grouping and window); Xiao et al., StreamingLLM
    (2024), and Hooper et al., KVQuant (2024), sections 3.2 and 3.5 (sinks, keys before RoPE).

    Args:
        formats: names of the menu of caches: grouped formats, and `bf16`.
        batch: sequences that are decoded together, for the bytes alone.
        context: tokens that each has, for the bytes alone.
        window: most recent tokens at 16 bits, the one that is decoded included.
        sinks: first tokens at 16 bits.
        pre_rope: quantize keys as they were before the rotary embedding.

    Raises:
        InvalidArgument: no formats, one that cannot hold a cache, or numbers out of range.
    """

    formats: tuple[str, ...]
    batch: int = 1
    context: int = 2048
    window: int = 32
    sinks: int = 4
    pre_rope: bool = False

    def __post_init__(self) -> None:
        if not self.formats:
            raise InvalidArgument("The menu of KV caches is empty: name at least one format.")
        for name in self.formats:
            if self.formats.count(name) > 1:
                raise InvalidArgument(f"Format {name} is named twice in the menu of KV caches.")
            if is_at_ends(named(name)):
                raise InvalidArgument(
                    f"Format {name!r} would lose more of a KV cache than zeros do: its two levels "
                    "are the ends of each group's range. Give sign_g32 or int2_g32 instead."
                )
            if not can_hold(named(name)):
                raise InvalidArgument(
                    f"Format {name!r} cannot hold a KV cache, which grows token by token: give "
                    "formats that store a scale, with or without a zero point, for each group and "
                    "nothing else, such as int4_g32 or mxfp4; or bf16."
                )
        if min(self.batch, self.context, self.window) < 1 or self.sinks < 0:
            raise InvalidArgument(
                f"KV cache of batch {self.batch}, context {self.context}, window {self.window} and "
                f"{self.sinks} sinks: give at least 1 of each, and 0 or more sinks."
            )

    @property
    def point(self) -> str:
        """Batch and context as budgets write them, such as `b1c2048`."""
        return f"b{self.batch}c{self.context}"

    @staticmethod
    def parse_point(text: str) -> tuple[int, int]:
        """Batch and context of `b1c2048`.

        Raises:
            InvalidArgument: something else.
        """
        if (match := _POINT.fullmatch(text.strip())) is None:
            raise InvalidArgument(
                f"Cannot read batch and context {text!r}: give them as in b1c2048."
            )
        return int(match.group(1)), int(match.group(2))

    def n_low(self, n_tokens: int, group: int) -> int:
        """Tokens of a cache of `n_tokens` that are quantized, in whole groups from the sinks on."""
        return max(0, n_tokens - self.sinks - self.window) // group * group

    def group(self, half: str, format: Format) -> int:
        """Tokens that are quantized together: 1 of values, a group of keys."""
        return (format.group_columns or 1) if half == "k" else 1

    def fits(self, half: str, n_channels: int, format: Format) -> bool:
        """Whether keys (`"k"`) or values (`"v"`) of a block can take a format of this menu."""
        is_listed = format.name in self.formats
        return is_listed and (half == "k" or format.fits((1, n_channels)))

    def nbytes(self, half: str, n_channels: int, format: Format) -> int:
        """Exact bytes of the keys or values of one block at `batch` and `context`.

        Args:
            half: `"k"` or `"v"`.
            n_channels: of all heads of the block together.
            format: of the menu.
        """
        group = self.group(half, format)
        n_low = self.n_low(self.context, group) if format.scaled else 0
        shape = (n_low // group * n_channels, group) if half == "k" else (n_low, n_channels)
        low = format.nbytes(shape) if n_low else 0
        return self.batch * (low + 2 * n_channels * (self.context - n_low))

    def check_length(self, n_tokens: int) -> None:
        """Refuse sequences in which nothing is ever quantized.

        Args:
            n_tokens: of a sequence.

        Raises:
            InvalidArgument: it ends before a group of keys has left the window.
        """
        group = max(self.group("k", named(name)) for name in self.formats)
        least = self.sinks + self.window + group
        if n_tokens <= least:
            raise InvalidArgument(
                f"Sequences of {n_tokens} tokens end before keys are quantized: {self.sinks} "
                f"sinks, a window of {self.window} and a group of {group} come first. Give "
                f"sequences of more than {least} tokens, or a smaller window."
            )

    def to_fields(self) -> dict[str, Any]:
        """Plain fields for JSON; `from_fields` reads them back."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> KVCache:
        """Inverse of `to_fields`."""
        return cls(**{**fields, "formats": tuple(fields["formats"])})


def can_hold(format: Format) -> bool:
    """Whether a format stores a scale, perhaps a zero point, for each group and nothing else.

    Then a cache can grow by groups, none of which waits for what a row or a matrix shares. More
    numbers to a group (`bit_planes`, `trit_planes`) are fitted round by round, which takes too long
    between two tokens. `is_at_ends` is refused too.
    """
    if not format.scaled:
        return format.num_bits > 0
    if format.input_format is not None or is_at_ends(format):
        return False
    group = format.group_columns
    if group is None:
        return False
    shape = (2, 5 * group)  # no power of two, which a table may have as many levels as
    return all(
        tensor.shape == group_shape(shape, group)
        for tensor in format.stored_qparams(shape).values()
    )


def is_at_ends(format: Format) -> bool:
    """Whether each number becomes an end of its group's range, without a search for other levels.

    Of Gaussian numbers that loses 1.4 to 1.9 times as much, by the norm, as zeros in their place.
    """
    return format.num_bits == 1 and not format.learned
