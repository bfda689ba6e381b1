"""Check: the checkpoint in a real engine against our own arithmetic on the original weights."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.specifiers import SpecifierSet
from torch import nn

from bitfront import runtimes
from bitfront.errors import InvalidArgument, MismatchedArtifact
from bitfront.files import replacing
from bitfront.manifest import Manifest
from bitfront.models.load import LoadedModel
from bitfront.models.tasks import no_language_model, run
from bitfront.notes import MANIFEST, VERDICT, unmeasured
from bitfront.progress import Event, Progress, silent
from bitfront.proof.rebuilt import Rebuilt, rebuilt, rounded_activations
from bitfront.proof.verdict import Distance, Verdict, widened
from bitfront.runtimes.base import Logits, Runtime, Tokens, Tolerance

N_SEQUENCES, LENGTH = 2, 48
_TEXT = (
    "The harbour master kept two clocks. One told the time of the town, by which the bakers rose "
    "and the school bell rang; the other told the time of the tide, and no two days of it were "
    "alike. When a ship asked for a pilot, he looked at the second clock first. In March 1907 "
    "the water stood 4.2 metres above the mark, and the ferry (which drew only 1.5) lay at the "
    "steps of the church. People said that the moon had moved. He wrote the number down, drew a "
    "line under it, and went to see whether the lamp on the mole was still lit. It was not. "
    "Nobody had told the keeper that the road would be under water, so he had stayed at home and "
    "mended his nets by the fire, as he did on any other evening of the year."
)


def check(
    folder: Path,
    runtime: str,
    model: str | None = None,
    results: Path | None = None,
    timeout: float = 3600.0,
    progress: Progress = silent,
) -> Verdict:
    """Load a checkpoint in an engine, compare its predictions with our own, store the verdict.

    Our own are computed in float32 from the unquantized model, quantized anew as the manifest says:
    nothing of the checkpoint but its manifest takes part. Where the engine rounds activations, so
    do we, and the tolerance grows by what that does to our own predictions: in some models the last
    bit of a norm decides which way a thousand activations are rounded.

    Args:
        folder: a checkpoint; gets `check-<runtime>.json`.
        runtime: profile of the engine.
        model: where the unquantized model is now; `None` for where it was.
        results: results folder of the study, whose quantized weights are taken.
        timeout: seconds that the engine may take.
        progress: called as the work goes on.

    Raises:
        BitfrontError: the engine is not installed, it does not load what this exporter writes, the
            weights are not the measured ones, or the manifest or the model is not there.
    """
    start = time.perf_counter()
    profile, manifest = runtimes.named(runtime), Manifest.read(folder)
    exporter = _checked_exporter(manifest, folder, profile)
    package = runtimes.RUNNERS.load(profile.engine).package
    installed = _version(package)
    reasons = list(manifest.changes(folder))
    with rebuilt(manifest, model, results, progress) as made:
        expected = _expected(made, profile, profile.loads[exporter])
    progress(Event("check", 0, 1))
    distance, failure = _distance(expected, profile, folder, timeout)
    progress(Event("check", 1, 1))
    bound = expected.tolerance
    reasons += distance.beyond(bound, expected.n_words) if distance else [failure]
    is_read = installed in SpecifierSet(profile.versions, prereleases=True)
    verdict = Verdict(
        runtime,
        package,
        installed,
        manifest.exporter,
        tuple(reasons),
        distance,
        bound,
        round(time.perf_counter() - start, 3),
        hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest(),
        "" if is_read else f"the profile was read from {package} {profile.versions}",
    )
    with replacing(folder / VERDICT.format(runtime=runtime)) as path:
        path.write_text(verdict.to_json() + "\n", encoding="utf-8")
    return verdict


def _checked_exporter(manifest: Manifest, folder: Path, profile: Runtime) -> str:
    """What wrote a checkpoint.

    Raises:
        InvalidArgument: an engine cannot be held to it; says why.
    """
    if manifest.identity.get("task"):
        raise no_language_model(
            "Engines are checked on", folder, "`bitfront verify` measures it again"
        )
    exporter = manifest.exporter.partition(":")[0]
    if exporter not in profile.loads:
        raise InvalidArgument(
            f"Runtime {profile.name!r} does not load what {exporter!r} writes, only checkpoints of "
            f"{', '.join(profile.loads)}: export with --exporter {profile.exporter}."
        )
    if manifest.study.base is not None and exporter == "packed":
        raise InvalidArgument(
            f"{folder} has only offsets to a base, which {profile.name!r} does not load: measure "
            "them with bitfront verify, or export with fake_quant."
        )
    if instead := unmeasured(folder):
        raise InvalidArgument(
            f"The weights of {folder} are not the measured ones ({instead}), so nothing says what "
            f"to expect: search with --runtime {profile.name}, and export with {profile.exporter}."
        )
    return exporter


@dataclass(frozen=True, eq=False)
class _Expected:
    """What an engine should predict.

    Args:
        tokens: int64 `[n, length]`.
        logits: after each token, `[n, length, vocabulary]`.
        n_words: of the vocabulary without padding.
        tolerance: how far from them it may be.
    """

    tokens: Tokens
    logits: Logits
    n_words: int
    tolerance: Tolerance


def _expected(made: Rebuilt, profile: Runtime, tolerance: Tolerance) -> _Expected:
    """Our own predictions, activations rounded where the engine of the profile rounds them."""
    tokens, module = fixed_tokens(made.model), made.patched(tolerance.float32_vectors)
    n_words = min(len(made.model.tokenizer), made.model.n_rows)
    plain = _logits(module, tokens)
    if not profile.activation_block:
        return _Expected(tokens, plain, n_words, tolerance)
    formats = made.of_weights
    layers = [layer for layer, format in formats.items() if format != "bf16"]
    with rounded_activations(module, layers, profile.activation_block):
        ours = _logits(module, tokens)
    return _Expected(tokens, ours, n_words, widened(tolerance, Distance.of(plain, ours)))


def fixed_tokens(model: LoadedModel) -> Tokens:
    """The same few sentences for every model, int64 `[N_SEQUENCES, LENGTH]`."""
    tokenizer: Any = model.tokenizer
    ids = [i for i in tokenizer(_TEXT)["input_ids"] if i < model.n_rows] or [0]
    n_wanted = N_SEQUENCES * LENGTH
    return np.resize(np.array(ids, dtype=np.int64), n_wanted).reshape(N_SEQUENCES, LENGTH)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise InvalidArgument(
            f"{package} is not installed here: pip install {package}, or check where it is."
        ) from None


def _logits(module: nn.Module, tokens: Tokens) -> Logits:
    with torch.no_grad():
        rows = [run(module, row[None])[0] for row in torch.from_numpy(tokens)]
    made: Logits = torch.stack(rows).float().numpy()
    return made


def _distance(
    expected: _Expected, profile: Runtime, folder: Path, timeout: float
) -> tuple[Distance | None, str]:
    """How far off the engine is, or why nothing can be compared."""
    theirs, failure = _predicted(profile, folder, expected.tokens, timeout)
    try:
        return (None if theirs is None else Distance.of(expected.logits, theirs)), failure
    except MismatchedArtifact as error:
        return None, str(error)


def _predicted(
    profile: Runtime, folder: Path, tokens: Tokens, timeout: float
) -> tuple[Logits | None, str]:
    """What the engine predicts in a process of its own, or why it does not."""
    with tempfile.TemporaryDirectory(prefix="bitfront-") as place:
        given, made = Path(place) / "tokens.npy", Path(place) / "logits.npy"
        np.save(given, tokens)
        command = [sys.executable, "-m", "bitfront.runtimes", profile.engine]
        try:
            done = subprocess.run(
                [*command, str(folder.resolve()), str(given), str(made)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, f"It took more than {timeout:g} s."
        if done.returncode or not made.exists():
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            return None, f"It ended with {done.returncode}: {last[:300]}"
        logits: Logits = np.load(made, allow_pickle=False)
        return logits, ""
