"""Where a worker works: what it refuses to take for a model."""

from dataclasses import replace

import pytest
from store.studies import request

from bitfront.artifacts import Artifacts
from bitfront.errors import InvalidArgument
from bitfront.settings import Settings
from bitfront.study import TextSource
from bitfront.workers.bench import Bench


@pytest.mark.parametrize("where", ["model", "calibration", "evaluation"])
def test_a_name_of_the_hub_is_never_a_path(store, tmp_path, monkeypatch, where):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "notes").write_text("secret")
    monkeypatch.chdir(tmp_path)
    named = "private/notes" if where == "model" else TextSource("private/notes")
    study, _ = store.studies.create(replace(request(), **{where: named}), "anna")
    bench = Bench(store, Artifacts(str(tmp_path / "artifacts")), Settings(home=tmp_path / "home"))
    with pytest.raises(InvalidArgument, match=r"private/notes.*also a path"):
        bench.study(study.id)


def test_two_benches_of_a_machine_have_folders_of_their_own(store, tmp_path):
    artifacts, settings = Artifacts(str(tmp_path / "artifacts")), Settings(home=tmp_path / "home")
    first, second = (Bench(store, artifacts, settings) for _ in range(2))
    assert first.folder != second.folder
    taken = first.folder
    first.close()
    third = Bench(store, artifacts, settings)
    assert third.folder == taken
    second.close()
    third.close()
