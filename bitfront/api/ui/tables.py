"""The stored loss table of a study."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from bitfront.artifacts import Artifacts
from bitfront.errors import MismatchedArtifact
from bitfront.space import SearchSpace
from bitfront.store import Store
from bitfront.store.records import StoredStudy
from bitfront.table import LayerTable


def loss_table(
    store: Store, artifacts: Artifacts, stored: StoredStudy, space: SearchSpace
) -> LayerTable | None:
    """What the estimator said of each layer; `None` before it is there.

    Raises:
        NotFound: the artifact is gone.
        MismatchedArtifact: it is damaged, or of another space.
    """
    name = f"tables/{stored.study.estimator.name}.npz"
    digest = store.files.of(stored.id, name).get(name)
    if digest is None:
        return None
    parts = _parts(artifacts, digest)
    return LayerTable(
        space,
        parts["values"],
        str(parts["quantity"]),
        str(parts["source"]),
        str(parts["reduction"]),
        str(parts.get("note", "")),
    )


# A digest names its bytes for ever.
@lru_cache(maxsize=32)
def _parts(artifacts: Artifacts, digest: str) -> Mapping[str, Any]:
    try:
        with artifacts.open(digest) as file, np.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MismatchedArtifact(f"The loss table cannot be read: {error}.") from error
