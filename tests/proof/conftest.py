"""A finished study, and checkpoints of its best point by exporter."""

import json
import shutil
from dataclasses import replace

import pytest

import bitfront.proof.check as _check
from bitfront import Budget, Choice, export_checkpoint, run_study
from bitfront.manifest import digests
from bitfront.notes import MANIFEST
from bitfront.results import Results
from bitfront.runtimes import RUNNERS
from tests.cli.conftest import run as run

MENU = ("int4_g32_sym", "int8_g32_sym")


@pytest.fixture(scope="session")
def proven(tiny_study, tmp_path_factory):
    """The study and its results folder."""
    out = tmp_path_factory.mktemp("proven")
    asked = tiny_study(
        2, 2, formats=MENU, estimator=Choice("weight_error"), searches=(Choice("sweep"),),
        n_trials=1, n_search_sequences=1, dtype="float32",
    )  # fmt: skip
    study = replace(asked, pinned="int8_g32_sym", budget=Budget(5.0, "bpw"))
    run_study(study, out)
    return study, out


@pytest.fixture(scope="session")
def exported(proven, tmp_path_factory):
    """Makes the checkpoint of an exporter, once; copy it before changing a file."""
    study, out = proven
    point = Results(out).front().best("kl", bits_per_weight=5.0)
    made = {}

    def make(exporter):
        if exporter not in made:
            made[exporter] = tmp_path_factory.mktemp(exporter) / "checkpoint"
            export_checkpoint(study, point, made[exporter], exporter, out)
        return made[exporter]

    return make


@pytest.fixture
def at_once(monkeypatch):
    """transformers without a process of its own, which takes seconds to import torch."""

    def logits(profile, folder, tokens, _timeout):
        try:
            return RUNNERS.build(profile.engine).logits(folder, tokens), ""
        except Exception as error:
            return None, str(error)

    monkeypatch.setattr(_check, "_predicted", logits)


@pytest.fixture
def altered(exported, tmp_path):
    """A copy of a checkpoint, changed, whose digests fit again: as those of a bad exporter."""

    def make(exporter, change):
        folder = shutil.copytree(exported(exporter), tmp_path / "altered")
        change(folder)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"] = {name: vars(digest) for name, digest in digests(folder).items()}
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return folder

    return make
