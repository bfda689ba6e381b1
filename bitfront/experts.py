"""Experts of a mixture: which of them share a format, and how many tokens each one saw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bitfront.errors import InvalidArgument
from bitfront.files import reading, replacing

GROUPINGS = ("matrix", "expert", "cluster", "block", "none")
LEAST_TOKENS = 16
LEAST_SHARE = 0.1
"""An expert that saw less than this share of an even distribution is judged by the others."""


@dataclass(frozen=True)
class Grouping:
    """Which weights of the routed experts of a block share a format.

    Args:
        kind: `"matrix"`: none, each matrix of each expert has its own; `"expert"`: the matrices of
            one expert; `"cluster"`: all of experts that are alike; `"block"`: all of a block;
            `"none"`: experts stay stacked and at 16 bits.
        n_clusters: of each block, for `"cluster"`.
    """

    kind: str
    n_clusters: int = 4

    @classmethod
    def parse(cls, text: str) -> Grouping:
        """Read `"block"`, `"cluster"`, `"cluster:3"`.

        Raises:
            InvalidArgument: something else.
        """
        kind, colon, number = text.partition(":")
        is_number = number.isascii() and number.isdigit() and int(number) > 0
        if kind not in GROUPINGS or (colon and not (kind == "cluster" and is_number)):
            raise InvalidArgument(
                f"experts is {text!r}: give one of {', '.join(GROUPINGS)}, or the number of "
                "clusters in a block as in cluster:4."
            )
        return cls(kind, int(number)) if colon else cls(kind)


def place(layer: str) -> tuple[str, int] | None:
    """Module of the experts and number of the expert of a layer `"<module>.<number>.<matrix>"`.

    >>> place("model.layers.0.mlp.experts.3.down_proj")
    ('model.layers.0.mlp.experts', 3)
    """
    module, _, rest = layer.rpartition(".")[0].rpartition(".")
    return (module, int(rest)) if rest.isdigit() else None


FILE = "experts.json"
"""Name in a results folder of what `TokensSeen.save` writes."""

PER_EXPERT = Grouping("expert")


@dataclass(frozen=True)
class TokensSeen:
    """How many tokens each expert saw.

    Args:
        counts: by name of the module that holds the experts of a block, in order of the experts.
    """

    counts: Mapping[str, tuple[int, ...]]

    def least(self, module: str) -> float:
        """Tokens below which an estimator that uses text imputes the score of an expert.

        That is 10 % of what each would see if all saw the same, and 16 at least.
        """
        counts = self.counts[module]
        return max(LEAST_TOKENS, LEAST_SHARE * sum(counts) / len(counts))

    def is_unseen(self, layer: str) -> bool:
        """Whether a layer is of an expert that saw too few tokens to be judged by them."""
        at = place(layer)
        return (
            at is not None
            and at[0] in self.counts
            and self.counts[at[0]][at[1]] < self.least(at[0])
        )

    @property
    def n_unseen(self) -> int:
        """Experts that saw too few tokens."""
        return sum(1 for row in self.rows() for count in row[1] if count < row[2])

    @property
    def widest(self) -> int:
        """Experts of the block that has most."""
        return max(map(len, self.counts.values()), default=0)

    @property
    def n_experts(self) -> int:
        """Experts of all blocks."""
        return sum(map(len, self.counts.values()))

    def rows(self) -> Iterator[tuple[str, tuple[int, ...], float]]:
        """Module, tokens of each of its experts, and below how many a score is imputed."""
        for module, counts in self.counts.items():
            yield module, counts, self.least(module)

    @property
    def summary(self) -> str:
        """One line for people; empty without experts."""
        every = sorted(count for counts in self.counts.values() for count in counts)
        if not every:
            return ""
        few = f"; {self.n_unseen} saw too few" if self.n_unseen else ""
        return (
            f"{len(every)} experts in {len(self.counts)} blocks saw {every[0]:,} to {every[-1]:,} "
            f"calibration tokens, median {every[len(every) // 2]:,}{few}"
        )

    def to_json(self) -> str:
        """JSON; `from_json` reads it back."""
        return json.dumps({"tokens": {name: list(c) for name, c in self.counts.items()}}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> TokensSeen:
        """Inverse of `to_json`; what is no such JSON raises what reading it happens to raise."""
        stored = json.loads(text)["tokens"]
        return cls({str(name): tuple(map(int, counts)) for name, counts in stored.items()})

    def save(self, path: Path) -> None:
        """Write a file of JSON.

        Raises:
            StorageError: it could not be written.
        """
        with replacing(path) as temporary:
            temporary.write_text(self.to_json() + "\n")

    @classmethod
    def load(cls, path: Path) -> TokensSeen:
        """Read what `save` wrote; nothing seen where there is no such file.

        Raises:
            MismatchedArtifact: it cannot be read.
        """
        if not path.exists():
            return cls({})
        with reading(path):
            return cls.from_json(path.read_text())
