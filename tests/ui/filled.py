"""Studies filled through the queue by hand: no model, made-up losses that follow a table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from fastapi import FastAPI

from bitfront import Budget, Study
from bitfront.api.app import create_app
from bitfront.artifacts import Artifacts
from bitfront.costs import COSTS
from bitfront.formats import named
from bitfront.settings import Settings
from bitfront.space import Layer, SearchSpace
from bitfront.store import Store
from bitfront.store.records import Claim, Outcome, Proposed, Stage, StoredStudy
from bitfront.table import LayerTable
from bitfront.trial import CACHE_BYTES, Trial, TrialState

MENU = ("int2_g64", "int3_g64", "int4_g64", "int8_g64")
PARTS = (
    ("self_attn.q_proj", "qkv", (256, 256)),
    ("self_attn.k_proj", "qkv", (128, 256)),
    ("self_attn.v_proj", "qkv", (128, 256)),
    ("self_attn.o_proj", "o", (256, 256)),
    ("mlp.gate_proj", "gate_up", (512, 256)),
    ("mlp.up_proj", "gate_up", (512, 256)),
    ("mlp.down_proj", "down", (256, 512)),
)


def space(n_blocks: int = 12, mark: str = "") -> SearchSpace:
    """A small Llama's layers; `mark` goes into every name."""
    layers = (
        Layer(f"model.layers.{b}.{part}{mark}", shape, f"{b}.{group}", b, f"{part}{mark}")
        for b in range(n_blocks)
        for part, group, shape in PARTS
    )
    return SearchSpace(tuple(layers), tuple(map(named, MENU)), fixed_bytes=70_000)


def loss_table(of: SearchSpace, seed: int = 0) -> LayerTable:
    """Random sensitivities that fall fourfold with every bit."""
    rng = np.random.default_rng(seed)
    scale = rng.lognormal(-6.5, 1.3, (len(of.layers), 1))
    bits = np.array([f.num_bits for f in of.formats], dtype=float)
    return LayerTable(of, scale * 4.0 ** (2 - bits), "kl", "FisherDirectional()", note="a note")


def request(**choices: object) -> Study:
    """A request that nobody loads a model for."""
    given = {"budget": Budget.parse("3.5bpw"), "n_trials": 40, "formats": MENU, **choices}
    return Study("org/tiny-llama", **given)


@dataclass
class Hand:
    """Does tasks by hand.

    Args:
        store: of the tasks.
        artifacts: where tables go.
        of: what is searched.
        fails: numbers of trials whose measurement ends in an error.
        error: what it says.
    """

    store: Store
    artifacts: Artifacts
    folder: Path
    of: SearchSpace
    fails: tuple[int, ...] = ()
    error: str = "The outputs overflow in block 3: use a finer format there."
    origin: str = "posterior_ilp"
    worker: str = "host-1:4711:0"

    def __post_init__(self) -> None:
        self.loss = loss_table(self.of)
        self.bytes = next(c for c in COSTS.build("memory").cost(self.of) if c.quantity == "bytes")
        self.code = next(
            c for c in COSTS.build("memory").cost(self.of) if c.quantity == "code_bits"
        )

    def table(self) -> str:
        """Digest of the stored loss table."""
        path = self.folder / "table.npz"
        with path.open("wb") as file:
            parts = {
                k: getattr(self.loss, k)
                for k in ("values", "quantity", "source", "reduction", "note")
            }
            np.savez(file, **parts)
        digest = self.artifacts.put(path)
        self.store.files.add(digest, path.stat().st_size)
        return digest

    def file(self, text: str) -> str:
        """Digest of a stored file of some text."""
        path = self.folder / hashlib.sha256(text.encode()).hexdigest()
        path.write_text(text)
        digest = self.artifacts.put(path)
        self.store.files.add(digest, path.stat().st_size)
        return digest

    def run(self, n: int | None = None) -> None:
        """Do so many tasks, or all there are."""
        done = 0
        self.store.queue.seen(self.worker, "cpu", "local", "0.1.0")
        while n is None or done < n:
            claim = self.store.queue.claim(self.worker, ["cpu"])
            if claim is None:
                return
            if claim.stage is Stage.EVALUATE and claim.number in self.fails:
                self.store.queue.fail(claim, self.error, final=True)
            else:
                self.store.queue.finish(claim, self.outcome(claim))
            done += 1

    def outcome(self, claim: Claim) -> Outcome:
        """What a worker would leave."""
        if claim.stage is Stage.PREPARE:
            return Outcome(space=self.of, queue="cpu")
        if claim.stage is Stage.ESTIMATE:
            name = self.store.studies.get(claim.study_id).study.estimator.name
            uniform = [self.of.decode(self.of.uniform(column)) for column in range(len(MENU))]
            proposed = tuple(Proposed(Trial(0, a, "calibration", "uniform")) for a in uniform)
            return Outcome(files={f"tables/{name}.npz": self.table()}, proposed=proposed)
        if claim.stage is Stage.PROPOSE:
            return self.proposal(claim)
        if claim.stage is Stage.EVALUATE:
            trial = self.store.trials.get(claim.study_id, claim.number)
            return Outcome(
                measured=replace(trial, state=TrialState.COMPLETE, values=self.values(trial))
            )
        if claim.stage is Stage.FINALISTS:
            trials = self.store.trials.of(claim.study_id, "calibration", finished=True)
            front = self.store.trials.front(claim.study_id, "calibration").trials
            kept = [t for t in trials if t in front or t.origin == "uniform"]
            return Outcome(
                proposed=tuple(
                    Proposed(Trial(0, t.allocation, "evaluation", t.origin)) for t in kept
                )
            )
        return Outcome(
            files={f"checkpoints/{claim.number}/model.safetensors": self.file("weights")}
        )

    def proposal(self, claim: Claim) -> Outcome:
        """A point of the sweep over prices, or the end."""
        study = self.store.studies.get(claim.study_id).study
        if claim.number + len(MENU) >= study.n_trials:
            return Outcome(search_ended=True)
        known = {t.allocation.digest for t in self.store.trials.of(claim.study_id, "calibration")}
        rng = np.random.default_rng(claim.number)
        while True:
            price = 10 ** rng.uniform(-9.2, -6.7)
            noise = rng.lognormal(0, 0.25, self.loss.grouped.shape)
            choice = np.argmin(self.loss.grouped * noise + price * self.bytes.grouped, axis=1)
            if self.of.decode(choice).digest not in known:
                break
        trial = Trial(0, self.of.decode(choice), "calibration", self.origin, target="t")
        return Outcome(proposed=(Proposed(trial, is_proposal=True),))

    def values(self, trial: Trial) -> dict[str, float]:
        """What a measurement gives: the sum of the table, bent and noisy."""
        choice = self.of.encode(trial.allocation)
        rng = np.random.default_rng(int(trial.allocation.digest[:8], 16))
        kl = self.loss.total(choice) ** 1.1 * rng.lognormal(0, 0.08)
        kl *= 1.15 if trial.text == "evaluation" else 1.0
        n_bytes = self.bytes.total(choice)
        weights = {t.quantity: t for t in COSTS.build("memory").cost(self.of)}.get("weight_bytes")
        cached = {} if weights is None else {CACHE_BYTES: n_bytes - weights.total(choice)}
        n_bytes -= cached.get(CACHE_BYTES, 0)
        return {
            "kl": kl, "kl_stderr": kl / 25, "perplexity": 17 * float(np.exp(kl)),
            "top1_error": 0.1 + kl / 10,
            "bits": self.code.total(choice) / self.of.n_weights,
            "bits_per_weight": 8 * n_bytes / self.of.n_weights,
            "bytes": n_bytes + cached.get(CACHE_BYTES, 0) + self.of.outside_bytes, "seconds": 0.1,
            **cached,
        }  # fmt: skip


@dataclass
class Filled:
    """A site with studies.

    Args:
        app: the API with its pages.
        store: its database.
        artifacts: its files.
        folder: where both are.
        ids: of studies, by a name for each.
    """

    app: FastAPI
    store: Store
    artifacts: Artifacts
    folder: Path
    ids: dict[str, str] = field(default_factory=dict)

    def hand(self, of: SearchSpace | None = None, **how: object) -> Hand:
        return Hand(self.store, self.artifacts, self.folder, of or space(), **how)

    def study(
        self,
        n: int | None = None,
        owner: str = "local",
        hand: Hand | None = None,
        **choices: object,
    ) -> StoredStudy:
        """A study of which `n` tasks are done, or all."""
        stored, _ = self.store.studies.create(request(**choices), owner)
        (hand or self.hand()).run(n)
        return self.store.studies.get(stored.id)


def site(folder: Path, **settings: object) -> Filled:
    """An empty site on SQLite in a folder."""
    store = Store(f"sqlite:///{folder / 'bitfront.db'}")
    store.db.upgrade()
    artifacts = Artifacts(str(folder / "artifacts"))
    app = create_app(store, artifacts, Settings(home=folder, **settings))
    return Filled(app, store, artifacts, folder)
