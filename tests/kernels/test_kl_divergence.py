"""The KL kernels against float64 on fresh logits: odd sizes, extremes, every dtype, wiring."""

import copy
import math

import pytest
import torch

from bitfront.evaluation.base import evaluate
from bitfront.evaluation.kl_divergence import KlDivergence
from bitfront.kernels.base import is_fused
from bitfront.kernels.kl_divergence import (
    kl_divergence,
    reference_kl_divergence,
    reference_top_log_probs,
    run_kl_divergence,
    run_top_log_probs,
    top_log_probs,
)
from bitfront.models import reference as reference_module
from bitfront.models.reference import Reference

# Interpreted, inf - inf is a warning of numpy.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
METRICS = {"kl": KlDivergence()}
SIZES = [(3, 100, 7), (1, 33, 33), (2, 9001, 512), (2, 8192, 1), (1, 20_000, 1000)]


@pytest.fixture
def drawn(generator, device):
    """Logits, indices of the top K: what a model might predict."""

    def draw(n, vocabulary, top_k, dtype=torch.float32):
        logits = (4 * torch.randn(n, vocabulary, generator=generator)).to(dtype)
        return logits.to(device), logits.float().topk(top_k).indices.int().to(device)

    return draw


def exact(logits, indices, q):
    """KL in float64 of the same logits."""
    return reference_kl_divergence(
        q.double(), indices, *reference_top_log_probs(logits.double(), indices)
    )


@pytest.mark.parametrize(("n", "vocabulary", "top_k"), SIZES)
@pytest.mark.parametrize("noise", [1e-3, 1.0, 30.0])
def test_kl_is_that_of_float64(drawn, generator, poisoned, n, vocabulary, top_k, noise):
    logits, indices = drawn(n, vocabulary, top_k)
    q = logits + noise * torch.randn(n, vocabulary, generator=generator).to(logits)
    kl = run_kl_divergence(q, indices, *run_top_log_probs(logits, indices))
    torch.testing.assert_close(kl.double(), exact(logits, indices, q), rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_and_reference_may_have_other_dtypes(drawn, generator, poisoned, dtype):
    logits, indices = drawn(2, 3001, 64, dtype)
    q = (logits + torch.randn(logits.shape, generator=generator).to(logits)).to(dtype)
    log_probs, log_tail = run_top_log_probs(logits, indices)
    kl = run_kl_divergence(q, indices.long(), log_probs, log_tail)
    torch.testing.assert_close(kl.double(), exact(logits, indices, q), rtol=1e-4, atol=1e-10)
    stored = [x.to(torch.float16) for x in (log_probs, log_tail)]
    expected = reference_kl_divergence(q.double(), indices, *stored)
    kl = run_kl_divergence(q, indices, *stored)
    torch.testing.assert_close(kl.double(), expected, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_logits_give_exactly_zero(drawn, poisoned, dtype):
    logits, indices = drawn(4, 9001, 512, dtype)
    assert not run_kl_divergence(logits, indices, *run_top_log_probs(logits, indices)).any()


def test_extreme_logits(drawn, poisoned):
    """±1e4, tokens and a whole first block at -inf; all probability in the top K; none outside."""
    logits, indices = drawn(4, 20_000, 16)
    q = logits.clone()
    q[0, indices[0, :2].long()] = 1e4
    q[1, indices[1].long()] = -1e4
    outside = torch.ones_like(q, dtype=torch.bool).scatter_(1, indices.long(), False)
    q[2][outside[2]] = -math.inf
    q[3, :9000][outside[3, :9000]] = -math.inf
    kl = run_kl_divergence(q, indices, *run_top_log_probs(logits, indices))
    torch.testing.assert_close(kl.double(), exact(logits, indices, q), rtol=1e-4, atol=0)
    assert kl.isfinite().all()


@pytest.mark.parametrize(
    ("value", "expected"), [(math.nan, math.nan), (math.inf, math.nan), (-math.inf, math.inf)]
)
@pytest.mark.parametrize("rank", [0, 15])
def test_what_is_not_finite_shows(drawn, poisoned, value, expected, rank):
    logits, indices = drawn(2, 500, 16)
    q = logits.clone()
    q[0, indices[0, rank].long()] = value
    kl = run_kl_divergence(q, indices, *run_top_log_probs(logits, indices))
    torch.testing.assert_close(kl[0].item(), expected, equal_nan=True)
    assert kl[1] == 0


@pytest.mark.parametrize("token", [7, 499])
def test_nan_outside_the_top_shows_too(drawn, poisoned, token):
    logits, indices = drawn(1, 500, 16)
    logits[0, token] = math.nan
    q = logits.clone()
    assert run_kl_divergence(q, indices, *run_top_log_probs(logits.nan_to_num(), indices)).isnan()


def test_ops_have_fakes_and_a_reference_on_the_processor(drawn):
    logits, indices = drawn(2, 100, 7)
    log_probs, log_tail = top_log_probs(logits.cpu(), indices.cpu())
    arguments = (logits.cpu(), indices.cpu(), log_probs, log_tail)
    torch.library.opcheck(
        top_log_probs, arguments[:2], test_utils=("test_schema", "test_faketensor")
    )
    torch.library.opcheck(kl_divergence, arguments, test_utils=("test_schema", "test_faketensor"))


def test_a_search_on_a_gpu_measures_by_the_kernels(monkeypatch, tiny_llama, tiny_tokens, device):
    """The kernels make the reference and measure by it: values of torch, and 0 where equal."""
    tokens, model = tiny_tokens[:2, :24], copy.deepcopy(tiny_llama).to(device)
    rounded, ran = copy.deepcopy(model).bfloat16(), set()
    monkeypatch.setattr(reference_module, "is_fused", lambda tensor: False)
    expected = evaluate(rounded, Reference.of(model, tokens, top_k=64), METRICS)
    monkeypatch.setattr(reference_module, "is_fused", lambda tensor: not tensor.requires_grad)
    for run in (run_top_log_probs, run_kl_divergence):
        name = run.__name__.removeprefix("run_")
        monkeypatch.setattr(
            f"bitfront.kernels.kl_divergence.{name}",
            lambda *x, name=name, run=run: ran.add(name) or run(*x),
        )
    reference = Reference.of(model, tokens, top_k=64)
    assert evaluate(rounded, reference, METRICS) == pytest.approx(expected, rel=1e-4)
    assert evaluate(model, reference, METRICS) == {"kl": 0.0, "kl_stderr": 0.0}
    assert ran == {"top_log_probs", "kl_divergence"}


def test_gradients_and_processors_keep_the_torch_path():
    assert not is_fused(torch.zeros(1))
    assert not is_fused(torch.zeros(1, device="meta", requires_grad=True))
