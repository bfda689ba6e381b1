"""Where a worker works."""

from bitfront.artifacts import Artifacts
from bitfront.settings import Settings
from bitfront.workers.bench import Bench


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
