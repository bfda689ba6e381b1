"""An API over a real store, and studies whose tasks this process does as a worker would."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from servers import database
from starlette.testclient import TestClient

from bitfront.api.app import create_app
from bitfront.artifacts import Artifacts
from bitfront.budget import Budget
from bitfront.formats import named
from bitfront.settings import Settings
from bitfront.space import Layer, SearchSpace
from bitfront.store import Store
from bitfront.store.records import Claim, Outcome, Proposed, Stage, StoredStudy
from bitfront.study import Study
from bitfront.trial import Trial, TrialState

MENU = ("int2_g64", "int4_g64", "int8_g64")
BODY = {"model": "org/tiny@main", "budget": "4.25bpw", "formats": list(MENU), "n_trials": 3}


def small_space() -> SearchSpace:
    """Three layers in two groups, three formats, a pinned head."""
    layers = (
        Layer("model.layers.0.self_attn.q_proj", (64, 128), "qk", 0, "self_attn.q_proj"),
        Layer("model.layers.0.self_attn.k_proj", (64, 128), "qk", 0, "self_attn.k_proj"),
        Layer("model.layers.0.mlp.up_proj", (256, 128), "up", 0, "mlp.up_proj"),
    )
    head = Layer("lm_head", (512, 128), "lm_head")
    formats = tuple(named(name) for name in MENU)
    return SearchSpace(layers, formats, ((head, named("int8_g64")),), fixed_bytes=1024)


@dataclass
class Bench:
    """A store with its artifacts, and a worker that does whatever is asked of it at once."""

    store: Store
    artifacts: Artifacts
    settings: Settings
    folder: Path
    space: SearchSpace = field(default_factory=small_space)

    def app(self) -> FastAPI:
        return create_app(self.store, self.artifacts, self.settings)

    def client(self, app: FastAPI | None = None, key: str | None = None, **options) -> TestClient:
        """A client on this machine, with a key if one is given."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        options = {"client": ("127.0.0.1", 5000), "headers": headers, **options}
        return TestClient(app or self.app(), "http://127.0.0.1", **options)

    def key(self, owner: str, *scopes: str, **options) -> str:
        return self.store.keys.create(owner, scopes or ("read", "write"), **options)[1]

    def study(self, owner: str = "local", **choices) -> StoredStudy:
        """A study that nobody has begun."""
        fields = {
            "model": "org/tiny",
            "budget": Budget(4.25, "bpw"),
            "formats": MENU,
            "n_trials": 3,
        }
        return self.store.studies.create(Study(**{**fields, **choices}), owner)[0]

    def stored(self, name: str, data: bytes) -> str:
        """Digest of new bytes in the artifacts."""
        path = self.folder / name.replace("/", "_")
        path.write_bytes(data)
        digest = self.artifacts.put(path)
        self.store.files.add(digest, len(data))
        return digest

    def table(self) -> str:
        path = self.folder / "table.npz"
        values = np.arange(9, dtype=float).reshape(3, 3)
        # As `Results.save_table` writes one.
        np.savez(path, values=values, quantity="kl", source="Fisher()", reduction="sum", note="")
        digest = self.artifacts.put(path)
        self.store.files.add(digest, path.stat().st_size)
        return digest

    def trial(self, choice: tuple[int, ...], text: str = "calibration", **fields) -> Trial:
        origin = fields.pop("origin", "trust_region")
        state = fields.pop("state", TrialState.RUNNING)
        return Trial(0, self.space.decode(choice), text, origin, state, **fields)

    def measured(self, claim: Claim) -> Trial:
        """Values that any worker would find, from the allocation alone."""
        trial = self.store.trials.get(claim.study_id, claim.number)
        choice = self.space.encode(trial.allocation)
        layers = self.space.layers
        sizes = [sum(layers[i].n_weights for i in group) for group in self.space.groups]
        bits = float(np.average(np.array([2, 4, 8])[choice], weights=sizes))
        values = {"kl": 2.0**-bits * 3, "kl_stderr": 0.001, "perplexity": 10 + 2.0**-bits}
        values |= {"top1_error": 0.3, "bits": bits, "bits_per_weight": bits + 0.25}
        values |= {"bytes": 1024 + round(bits * 6144), "seconds": 0.1}
        return Trial(trial.number, trial.allocation, trial.text, trial.origin, values=values)

    def outcome(self, claim: Claim) -> Outcome:
        """What a worker would leave of a task."""
        if claim.stage is Stage.PREPARE:
            return Outcome(space=self.space, queue="cpu")
        if claim.stage is Stage.ESTIMATE:
            baselines = [
                self.trial((column,) * len(self.space.groups), origin="uniform")
                for column in range(3)
            ]
            files = {"tables/fisher_directional.npz": self.table()}
            return Outcome(files, proposed=tuple(map(Proposed, baselines)))
        if claim.stage is Stage.PROPOSE:
            return self.proposed(claim)
        if claim.stage is Stage.EVALUATE:
            return Outcome(measured=self.measured(claim))
        if claim.stage is Stage.FINALISTS:
            front = self.store.trials.front(claim.study_id, "calibration")
            again = [
                Trial(0, t.allocation, "evaluation", t.origin, TrialState.RUNNING)
                for t in front.trials
            ]
            return Outcome(proposed=tuple(map(Proposed, again)))
        root = f"checkpoints/{claim.number}"
        weights = self.stored("weights", bytes(range(256)) * 40)
        config = self.stored("config", json.dumps({"bits": 4}).encode())
        return Outcome({f"{root}/model.safetensors": weights, f"{root}/config.json": config})

    def proposed(self, claim: Claim) -> Outcome:
        request = self.store.studies.get(claim.study_id).study
        known = {t.allocation.digest for t in self.store.trials.of(claim.study_id, "calibration")}
        if len(known) >= request.n_trials:
            return Outcome(search_ended=True)
        for choice in itertools.product(range(3), repeat=len(self.space.groups)):
            trial = self.trial(choice)
            if trial.allocation.digest not in known:
                return Outcome(proposed=(Proposed(trial, True),))
        return Outcome(search_ended=True)

    def work(self, n_tasks: int = 1_000) -> int:
        """Do what is queued, at most so many tasks; how many there were."""
        for done in range(n_tasks):
            claim = self.store.queue.claim("worker-1", ("cpu",))
            if claim is None:
                return done
            self.store.queue.finish(claim, self.outcome(claim))
        return n_tasks


def bench_at(folder: Path, database_url: str = "") -> Bench:
    """A bench whose files are in a folder, and so is its database unless another is named."""
    places = [folder / name for name in ("models", "texts", "scratch")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        home=folder, database_url=database_url, model_roots=(places[0],), data_roots=(places[1],)
    )
    return Bench(Store(settings.database), Artifacts(settings.artifacts), settings, places[2])


@pytest.fixture(scope="session")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the newest schema, to be copied."""
    made = bench_at(tmp_path_factory.mktemp("empty"))
    made.store.db.upgrade()
    made.store.db.pool.dispose()
    return made.settings.home


@pytest.fixture
def database_kind() -> str:
    """What `bench` stores in; a module overrides it to run on PostgreSQL as well."""
    return "sqlite"


@pytest.fixture
def bench(
    tmp_path: Path, database_kind: str, empty_folder: Path, request: pytest.FixtureRequest
) -> Iterator[Bench]:
    """A store of its own for each test."""
    with ExitStack() as stack:
        url = ""
        if database_kind == "sqlite":
            shutil.copytree(empty_folder, tmp_path, dirs_exist_ok=True)
        else:
            url = stack.enter_context(database(request.getfixturevalue("postgres_url")))
        made = bench_at(tmp_path, url)
        if url:
            made.store.db.upgrade()
        stack.callback(made.store.db.pool.dispose)
        yield made


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, empty_folder: Path) -> Iterator[Bench]:
    """A store for tests in which nothing may be stored."""
    folder = tmp_path_factory.mktemp("untouched")
    shutil.copytree(empty_folder, folder, dirs_exist_ok=True)
    made = bench_at(folder)
    yield made
    made.store.db.pool.dispose()


@pytest.fixture
def client(bench: Bench) -> Iterator[TestClient]:
    """A client of a machine without keys."""
    with bench.client() as client:
        yield client


@pytest.fixture
def done(bench: Bench) -> StoredStudy:
    """A study of `local` that is complete."""
    study = bench.study(n_trials=5)
    bench.work()
    return bench.store.studies.get(study.id)
