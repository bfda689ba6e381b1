"""What workers do, one function a stage: load, call the library, say what to store."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from bitfront.experts import FILE as EXPERTS
from bitfront.proposing import Proposer, baselines, is_due
from bitfront.run import export_checkpoint, finalists
from bitfront.store.records import Claim, Outcome, Proposed, Settled, Stage
from bitfront.trial import Trial, TrialState
from bitfront.workers.bench import Bench
from bitfront.workers.lease import Lease
from bitfront.workers.work import Work

_MAX_PROPOSALS = 16
"""Of one task: more would keep others waiting for the first."""


def prepare(bench: Bench, claim: Claim, lease: Lease) -> Outcome:
    """Fetch and load the model, quantize every layer in every format, note what it predicts."""
    request = bench.request(claim.study_id, lease.progress)
    made = bench.prepared(claim.study_id, lease.progress, bench.settings.max_layers)
    bench.write_environment(claim.study_id)
    files = bench.stored(claim.study_id, lease.check)
    module = made.inputs.model.module
    # "auto" may mean something else to the next worker.
    dtype, device = str(module.dtype).removeprefix("torch."), str(module.device).partition(":")[0]
    queue = "gpu" if device == "cuda" else "cpu"
    settled = Settled(
        dtype,
        device,
        request.revision,
        request.calibration.source,
        request.evaluation.source,
        request.base,
        request.second,
    )
    return Outcome(files, space=made.inputs.space, settled=settled, queue=queue)


def estimate(bench: Bench, claim: Claim, lease: Lease) -> Outcome:
    """Estimate the loss of every layer in every format; the baselines can be measured then."""
    job = bench.loaded(claim.study_id, lease.progress)
    files = bench.stored(
        claim.study_id, lease.check, ("tables/", "pairs.json", EXPERTS, "references/")
    )
    uniform = baselines(job.problem.space)
    proposed = tuple(Proposed(Trial(0, a, "calibration", "uniform")) for a in uniform)
    return Outcome(files, proposed=proposed)


def propose(bench: Bench, claim: Claim, lease: Lease) -> Outcome:
    """Say what to measure next, or that nothing is left."""
    job = bench.job(claim.study_id, lease.progress)
    proposer, proposed, ended = Proposer.opened(job), list[Proposed](), False
    # As many as are due: with many workers that saves as many tasks.
    while len(proposed) < _MAX_PROPOSALS and not ended and (is_due(job) or not proposed):
        lease.check()
        new = proposer.next()
        if new is None:
            ended = True
        else:
            running = Trial(
                job.next_number,
                new.allocation,
                "calibration",
                new.origin,
                TrialState.RUNNING,
                target=new.target,
            )
            job.stored.append(running)
            proposed.append(Proposed(replace(running, values=new.spent), is_proposal=True))
    files = bench.stored(claim.study_id, lease.check, ("tables/", "references/"))
    # What was proposed comes first; the next task finds the search at its end again.
    is_over = ended and not proposed
    return Outcome(files, proposed=tuple(proposed), search_ended=is_over, asked=job.study)


def evaluate(bench: Bench, claim: Claim, lease: Lease) -> Outcome:
    """Measure an allocation on the real model."""
    job = bench.loaded(claim.study_id, lease.progress)
    trial = bench.store.trials.get(claim.study_id, claim.number)
    measured = job.measurement.trial(
        trial.number,
        trial.allocation,
        trial.text,
        trial.origin,
        trial.target,
        progress=lambda _done, _total: lease.check(),
    )
    return Outcome(measured=measured)


def choose(bench: Bench, claim: Claim, lease: Lease) -> Outcome:
    """Pick what is measured again on the evaluation text."""
    job = bench.job(claim.study_id, lease.progress)
    chosen = finalists(job.trials("calibration"), job.problem, job.study.n_finalists)
    again = tuple(Proposed(Trial(0, t.allocation, "evaluation", t.origin)) for t in chosen)
    return Outcome(proposed=again)


def materialise(bench: Bench, claim: Claim, lease: Lease) -> Outcome:
    """Write the checkpoint of a measured point."""
    study_id = claim.study_id
    wanted = next(c for c in bench.store.checkpoints.of(study_id) if c.number == claim.number)
    trial = bench.store.trials.get(study_id, wanted.trial)
    bench.cool()  # the export holds the folder, and loads the model itself
    bench.fetch(study_id)
    results = bench.folder / study_id
    with tempfile.TemporaryDirectory(dir=bench.folder, prefix=".checkpoint-") as made:
        target = Path(made) / "checkpoint"
        export_checkpoint(
            bench.study(study_id),
            trial,
            target,
            wanted.exporter,
            results,
            lease.progress,
            bench.store.studies.get(study_id).study,
        )
        files = {}
        for path in sorted(p for p in target.rglob("*") if p.is_file()):
            lease.check()
            name = f"checkpoints/{claim.number}/{path.relative_to(target).as_posix()}"
            files[name] = bench.put(path)
    return Outcome(files)


STAGES: Mapping[Stage, Work[Bench]] = MappingProxyType(
    {
        Stage.PREPARE: prepare,
        Stage.ESTIMATE: estimate,
        Stage.PROPOSE: propose,
        Stage.EVALUATE: evaluate,
        Stage.FINALISTS: choose,
        Stage.MATERIALISE: materialise,
    }
)
