"""Estimators that take long are made and stored block by block."""

from pathlib import Path

import numpy as np
import pytest

from bitfront import Choice, run_study
from bitfront.banks import build_bank
from bitfront.inputs import prepare
from bitfront.progress import Event
from bitfront.results import Results
from bitfront.sensitivity import ESTIMATORS


class Cut(Exception):
    """Stands in for a kill."""


@pytest.mark.parametrize("name", ["leave_one_in", "linearity"])
def test_a_long_estimate_that_is_cut_keeps_the_blocks_it_made(
    name: str, tiny_study, tmp_path: Path
) -> None:
    study = tiny_study(
        *(2, 2),
        formats=("int3_g32", "int8_g32"),
        estimator=Choice(name, {"max_sequences": 1}),
        searches=(Choice("sweep"),),
        n_trials=1,
    )

    def cut(event: Event) -> None:
        """In the third of four blocks."""
        if event.stage == "estimate" and event.done > event.total / 2:
            raise Cut

    def blocks() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("tables/*-block*")}

    with pytest.raises(Cut):
        run_study(study, tmp_path, cut)
    assert len(kept := blocks()) == 2
    with pytest.raises(Cut):
        run_study(study, tmp_path, cut)
    assert blocks() == kept
    run_study(study, tmp_path)
    assert [path.name for path in (tmp_path / "tables").iterdir()] == [f"{name}.npz"]
    inputs = prepare(study)
    bank = build_bank(study, inputs, tmp_path / "bank")
    whole = ESTIMATORS.build(name, {"max_sequences": 1}).estimate(
        inputs.model.module, inputs.estimation, inputs.space, bank
    )
    stored = Results(tmp_path).load_table(name, inputs.space)
    assert stored is not None
    assert stored.source == whole.source
    np.testing.assert_allclose(stored.values, whole.values, rtol=1e-4, atol=1e-7)
