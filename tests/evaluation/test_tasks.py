"""Metrics of models that are no language models."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.evaluation import METRICS, evaluate
from bitfront.measurement import metrics_of
from bitfront.models.embeddings import answers_of
from bitfront.models.layers import find_layers, get_weight
from bitfront.models.reference import Reference


@pytest.fixture
def damaged():
    """Adds noise to one weight of a model, and takes it away again."""
    kept = []

    def damage(model, scale):
        weight = get_weight(model, find_layers(model)[4].name)
        kept.append((weight, weight.clone()))
        generator = torch.Generator().manual_seed(0)
        weight += scale * weight.std() * torch.randn(weight.shape, generator=generator)

    yield damage
    for weight, values in reversed(kept):
        weight.copy_(values)


def test_label_error_is_against_labels_and_top1_error_against_the_model(
    tiny_vit, unseen_digits, damaged
):
    pixels, labels = (x[:120] for x in unseen_digits)
    made = Reference.of(tiny_vit, pixels)
    assert list(metrics_of(tiny_vit, made)) == ["kl_divergence", "top1_error"]
    reference = Reference(made.tokens, made.indices, made.log_probs, made.log_tail, labels)
    metrics = metrics_of(tiny_vit, reference)
    assert list(metrics) == ["kl_divergence", "top1_error", "label_error"]
    with torch.no_grad():
        before = tiny_vit(pixels).logits.argmax(-1)
    assert evaluate(tiny_vit, reference, metrics)["top1_error"] == 0
    damaged(tiny_vit, 3.0)
    with torch.no_grad():
        after = tiny_vit(pixels).logits.argmax(-1)
    values = evaluate(tiny_vit, reference, metrics)
    assert values["label_error"] == pytest.approx(float((after != labels).float().mean()))
    assert values["top1_error"] == pytest.approx(float((after != before).float().mean()))
    assert values["top1_error"] > 0
    with pytest.raises(InvalidArgument, match="have no labels"):
        evaluate(tiny_vit, made, {"label_error": METRICS.build("label_error")})


def test_embedding_metrics_by_their_definitions(tiny_bert, sentences, damaged):
    reference = answers_of(tiny_bert, sentences[:12])
    metrics = metrics_of(tiny_bert, reference)
    unchanged = evaluate(tiny_bert, reference, metrics)
    assert unchanged["cosine_error"] == 0
    assert unchanged["rank_correlation_error"] == pytest.approx(0, abs=1e-12)
    measured = [unchanged]
    for scale in (1.0, 3.0):
        damaged(tiny_bert, scale)
        measured.append(evaluate(tiny_bert, reference, metrics))
    vectors = answers_of(tiny_bert, sentences[:12]).vectors
    cosines = (vectors * reference.vectors).sum(dim=1)
    assert measured[2]["cosine_error"] == pytest.approx(float((1 - cosines).mean()), abs=1e-6)
    pairs = [
        (float(vectors[i] @ vectors[j]), float(reference.vectors[i] @ reference.vectors[j]))
        for i in range(12)
        for j in range(i)
    ]
    rho = spearmanr(*np.array(pairs).T).statistic
    assert measured[2]["rank_correlation_error"] == pytest.approx(1 - rho, abs=1e-6)
    for name in ("cosine_error", "rank_correlation_error"):
        assert measured[0][name] < measured[1][name] < measured[2][name]
    assert measured[2]["cosine_error_stderr"] > 0


def test_metrics_of_the_other_kind_are_refused(tiny_bert, sentences, tiny_vit, unseen_digits):
    embedded = answers_of(tiny_bert, sentences[:3])
    with pytest.raises(InvalidArgument, match="Embeddings predict nothing"):
        evaluate(tiny_bert, embedded, {"kl_divergence": METRICS.build("kl_divergence")})
    predicted = Reference.of(tiny_vit, unseen_digits[0][:3])
    with pytest.raises(InvalidArgument, match="no embeddings"):
        evaluate(tiny_vit, predicted, {"rank_correlation": METRICS.build("rank_correlation")})


def test_overflow_is_no_embedding(tiny_bert, sentences, damaged):
    reference = answers_of(tiny_bert, sentences[:3])
    damaged(tiny_bert, float("inf"))
    with pytest.raises(NonFinite, match="cosine_error"):
        evaluate(tiny_bert, reference, metrics_of(tiny_bert, reference))
