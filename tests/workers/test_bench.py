"""Where a worker works."""

from bitfront.artifacts import Artifacts
from bitfront.settings import Settings
from bitfront.store.records import StudyState
from bitfront.workers.bench import Bench, use_gpu
from bitfront.workers.stages import STAGES
from bitfront.workers.work import work


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


def test_a_process_that_measures_on_the_cpu_takes_no_gpu(store, tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    artifacts, settings = Artifacts(str(tmp_path / "artifacts")), Settings(home=tmp_path / "home")
    on_cpu = settings.model_copy(update={"device": "cpu"})
    kinds = (settings, ("cpu",)), (settings, ("gpu",)), (on_cpu, ("gpu",)), (settings, ("gpu",))
    benches = [Bench(store, artifacts, *kind) for kind in kinds]
    assert len({bench.folder for bench in benches}) == 4
    assert chosen == [0, 1]
    for bench in benches:
        bench.close()


def test_processes_of_a_machine_have_gpus_in_turn(monkeypatch):
    """Two GPUs, as `torch` would tell of them; without any, nothing is chosen."""
    chosen = []
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    for n_gpus in (0, 2):
        monkeypatch.setattr("torch.cuda.device_count", lambda n=n_gpus: n)
        for index in range(3):
            use_gpu(index)
    assert chosen == [0, 1, 0]


def test_a_model_of_too_many_layers_is_refused_before_it_is_quantized(store, tiny_study, tmp_path):
    settings = Settings(home=tmp_path / "home", max_layers=27)
    bench = Bench(store, Artifacts(str(tmp_path / "artifacts")), settings)
    study, _ = store.studies.create(tiny_study(4, 4, device="cpu"), "anna")
    work(bench, store.queue.claim("w", ["cpu"]), STAGES, lambda: False)
    failed = store.studies.get(study.id)
    assert failed.state is StudyState.FAIL
    assert "has 28 layers, of at most 27" in failed.error
    assert not (bench.folder / study.id / "bank").exists()
    settings.max_layers = 28
    store.studies.resume(study.id)
    work(bench, store.queue.claim("w", ["cpu"]), STAGES, lambda: False)
    assert store.studies.get(study.id).state is StudyState.RUNNING
    bench.close()
