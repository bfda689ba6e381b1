"""Real engines judge checkpoints: good ones pass, silently wrong ones do not."""

import importlib.metadata
import json
import shutil

import numpy as np
import pytest

from bitfront.errors import InvalidArgument, MismatchedArtifact
from bitfront.proof.check import check
from bitfront.proof.verdict import Distance
from bitfront.runtimes.base import Tolerance
from tests import cases
from tests.proof import corruptions

CLAIMS = [
    (runtime, *claim) for runtime, claims in cases.RUNNERS.items() for claim in claims.items()
]


@pytest.mark.parametrize(("runtime", "exporter", "mean_kl"), CLAIMS)
def test_an_engine_predicts_what_we_compute(runtime, exporter, mean_kl, exported, request):
    if runtime == "transformers":
        request.getfixturevalue("at_once")
    folder = exported(exporter)
    verdict = check(folder, runtime)
    assert verdict.holds, verdict
    assert verdict.distance.mean_kl <= mean_kl
    assert verdict.distance.n_tokens == 96
    stored = json.loads((folder / f"check-{runtime}.json").read_text())
    assert stored["verdict"] == "PASS"
    assert stored["version"] == importlib.metadata.version(verdict.engine)
    assert stored["distance"]["mean_kl"] == verdict.distance.mean_kl


@pytest.mark.parametrize("corruption", [corruptions.swap_scales, corruptions.flip_codes])
@pytest.mark.parametrize("exporter", ["packed", "compressed_tensors"])
def test_silent_corruption_fails(exporter, corruption, altered, at_once):
    verdict = check(altered(exporter, corruption), "transformers")
    assert not verdict.holds, verdict
    assert verdict.distance is not None
    assert "mean_kl" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("runtime", "exporter", "corruption"),
    [
        ("transformers", "packed", corruptions.flip_codes),
        ("llama_cpp", "gguf", corruptions.flip_blocks),
    ],
    ids=["transformers", "llama_cpp"],
)
def test_the_command_fails_on_silent_corruption(runtime, exporter, corruption, altered, run):
    folder = altered(exporter, corruption)
    code, said, _ = run("check", folder, "--runtime", runtime)
    assert code == 1, said
    assert said.startswith("FAIL")
    assert "KL" in said
    assert json.loads((folder / f"check-{runtime}.json").read_text())["verdict"] == "FAIL"


def test_bytes_that_no_prediction_shows_fail_by_their_digest(proven, exported, tmp_path, at_once):
    folder = shutil.copytree(exported("packed"), tmp_path / "copy")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text + "\n")
    verdict = check(folder, "transformers", results=proven[1])
    assert verdict.distance.mean_kl == 0
    assert [x.partition(" has ")[0] for x in verdict.reasons] == ["config.json"]


def test_an_engine_that_cannot_load_is_a_verdict(altered):
    folder = altered(
        "gguf", lambda folder: (folder / "model.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    )
    verdict = check(folder, "llama_cpp")
    assert not verdict.holds
    assert verdict.distance is None
    assert "ended with" in str(verdict)


def test_a_cut_vocabulary_fails(exported, monkeypatch):
    """One word has probability 1 on both sides: nothing but its number tells."""

    def cut(_profile, _folder, tokens, _timeout):
        return np.zeros((*tokens.shape, 1), dtype=np.float32), ""

    monkeypatch.setattr("bitfront.proof.check._predicted", cut)
    verdict = check(exported("packed"), "transformers")
    assert verdict.reasons[0] == "n_words is 1, the model has 512."


def test_what_cannot_be_checked_is_one_line(exported, tmp_path):
    with pytest.raises(InvalidArgument, match="does not load what 'packed' writes"):
        check(exported("packed"), "llama_cpp")
    with pytest.raises(InvalidArgument, match=r"has no manifest\.json"):
        check(tmp_path, "transformers")


@pytest.mark.skipif(
    "vllm" in {d.name for d in importlib.metadata.distributions()}, reason="is there"
)
def test_an_engine_that_is_not_here_is_one_line(exported):
    with pytest.raises(InvalidArgument, match="vllm is not installed here"):
        check(exported("compressed_tensors"), "vllm")


def test_distances_are_those_of_distributions():
    rng = np.random.default_rng(0)
    ours = rng.normal(size=(2, 5, 7)).astype(np.float32)
    same = Distance.of(ours, (ours + 3)[:, :4])  # shifted, without the last token
    assert same.mean_kl == pytest.approx(0, abs=1e-6)
    assert (same.top1_agreement, same.n_tokens, same.n_words) == (1.0, 8, 7)
    unpadded = Distance.of(np.pad(ours, ((0, 0), (0, 0), (0, 2))), ours)  # two words of padding
    assert unpadded.beyond(Tolerance(1e-6, 1e-6, 1.0), n_words=7) == ()
    theirs = ours.copy()
    theirs[0, 0] = np.roll(ours[0, 0], 1)
    p, q = (np.exp(x[0, 0]) / np.exp(x[0, 0]).sum() for x in (ours, theirs))
    assert Distance.of(ours, theirs).max_kl == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)
    few = np.log(q)[None, None]
    few[..., q < np.sort(q)[-3]] = -np.inf
    rest = [np.append(x[q >= np.sort(q)[-3]], x[q < np.sort(q)[-3]].sum()) for x in (p, q)]
    merged = (rest[0] * np.log(rest[0] / rest[1])).sum()
    assert Distance.of(ours[:1, :1], few).max_kl == pytest.approx(merged, rel=1e-5)
    none = Tolerance(1.0, 1.0, 0.0)
    broken = np.full_like(ours, np.nan)
    assert Distance.of(ours, broken).beyond(none, n_words=7)


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 6, 7), (1, 5, 7), (2, 5), (2, 5, 0)])
def test_predictions_of_other_tokens_are_not_compared(shape):
    """Not even the part that both have: it would be called a comparison of all."""
    ours = np.zeros((2, 5, 7), dtype=np.float32)
    with pytest.raises(MismatchedArtifact, match="for 2 sequences of 5 tokens: it must tell"):
        Distance.of(ours, np.zeros(shape, dtype=np.float32))
