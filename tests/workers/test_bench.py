"""Where a worker works."""

from bitfront.artifacts import Artifacts
from bitfront.settings import Settings
from bitfront.workers.bench import Bench, use_gpu


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


def test_processes_of_a_machine_have_gpus_in_turn(monkeypatch):
    """Two GPUs, as `torch` would tell of them; without any, nothing is chosen."""
    chosen = []
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    for n_gpus in (0, 2):
        monkeypatch.setattr("torch.cuda.device_count", lambda n=n_gpus: n)
        for index in range(3):
            use_gpu(index)
    assert chosen == [0, 1, 0]
