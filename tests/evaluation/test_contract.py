"""What every metric promises, and what `evaluate` promises for all of them."""

import pickle

import cases
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bitfront.errors import NonFinite
from bitfront.evaluation import METRICS, evaluate, sequence_values
from bitfront.models.layers import find_layers, get_weight
from bitfront.models.reference import Reference
from bitfront.models.tasks import scored_outputs

NAMES = [name for name in METRICS.names() if METRICS.load(name).of == "predictions"]
ALL = {name: METRICS.build(name) for name in NAMES}


@pytest.fixture(scope="module")
def tokens(tiny_tokens):
    return tiny_tokens[:4]


@pytest.fixture(scope="module")
def reference(tiny_llama, tokens):
    return Reference.of(tiny_llama, tokens, top_k=128)


@pytest.fixture
def weight(tiny_llama):
    weight = get_weight(tiny_llama, find_layers(tiny_llama)[3].name)
    kept = weight.clone()
    yield weight
    weight.copy_(kept)


def noise(weight, scale):
    generator = torch.Generator().manual_seed(0)
    return scale * weight.std() * torch.randn(weight.shape, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_default_constructible_and_picklable(name):
    assert pickle.loads(pickle.dumps(ALL[name])) == METRICS.build(name)


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_value_per_predicted_token_and_logits_untouched(
    name, tiny_llama, reference, tokens
):
    logits = scored_outputs(tiny_llama, tokens[0]).to(torch.bfloat16)
    kept = logits.clone()
    values = ALL[name].per_token(logits, reference, 0)
    assert values.shape == (tokens.shape[1] - 1,)
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert torch.equal(logits, kept)


@pytest.mark.parametrize("name", NAMES)
def test_claimed_quantities_of_the_unquantized_model(name, tiny_llama, reference):
    claim = cases.METRICS[name]
    values = evaluate(tiny_llama, reference, {name: ALL[name]})
    assert sorted(values) == sorted(claim)
    for quantity, expected in claim.items():
        assert expected is None or values[quantity] == expected


# Against the text's own next tokens a damaged model may be luckier.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "label_error"])
def test_more_damage_is_worse(name, tiny_llama, reference, weight):
    (quantity, *_) = cases.METRICS[name]
    measured = []
    for scale in (0.0, 1.0, 3.0):
        weight += noise(weight, scale)
        measured.append(evaluate(tiny_llama, reference, {name: ALL[name]})[quantity])
    assert measured[0] < measured[1] < measured[2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_predictions_name_the_metric(name, value, tiny_llama, reference, weight):
    weight[0, 0] = value
    with pytest.raises(NonFinite, match=name):
        evaluate(tiny_llama, reference, {name: ALL[name]})


def test_a_perplexity_beyond_floats_is_refused_though_every_token_is_finite(tiny_llama, reference):
    norm = tiny_llama.model.norm.weight
    kept = norm.detach().clone()
    with torch.no_grad():
        norm.mul_(-1000)
    try:
        assert evaluate(tiny_llama, reference, {"kl_divergence": ALL["kl_divergence"]})["kl"] > 709
        with pytest.raises(NonFinite, match="'perplexity' is inf"):
            evaluate(tiny_llama, reference, ALL)
    finally:
        with torch.no_grad():
            norm.copy_(kept)


def test_one_forward_per_sequence_serves_all_metrics(tiny_llama, reference, tokens):
    forwards, steps = [], []
    hook = tiny_llama.register_forward_hook(lambda *_: forwards.append(1))
    try:
        values = evaluate(tiny_llama, reference, ALL, lambda *step: steps.append(step))
    finally:
        hook.remove()
    assert sorted(values) == sorted(q for name in NAMES for q in cases.METRICS[name])
    assert len(forwards) == len(tokens)
    assert steps == [(n, 4) for n in range(1, 5)]


def test_perplexity_and_top1_error_by_their_definitions(tiny_llama, reference, tokens, weight):
    with torch.no_grad():
        before = tiny_llama(tokens).logits[:, :-1]
        weight += noise(weight, 2.0)
        after = tiny_llama(tokens).logits[:, :-1]
    values = evaluate(tiny_llama, reference, ALL)
    nll = cross_entropy(after.double().flatten(0, 1), tokens[:, 1:].flatten())
    assert values["perplexity"] == pytest.approx(float(nll.exp()), rel=1e-5)
    changed = (before.argmax(-1) != after.argmax(-1)).double().mean()
    assert values["top1_error"] == pytest.approx(float(changed), abs=1e-9)
    assert changed > 0


def test_standard_error_is_over_sequences(tiny_llama, reference, weight):
    weight += noise(weight, 1.0)
    means = sequence_values(tiny_llama, reference, ALL)["kl_divergence"]
    values = evaluate(tiny_llama, reference, ALL)
    assert means.shape == (4,)
    assert values["kl"] == pytest.approx(means.mean())
    assert values["kl_stderr"] == pytest.approx(np.std(means, ddof=1) / 2)


def test_a_single_sequence_gives_its_value_as_its_error(tiny_llama, tokens, weight):
    reference = Reference.of(tiny_llama, tokens[:1])
    weight += noise(weight, 1.0)
    values = evaluate(tiny_llama, reference, {"kl_divergence": ALL["kl_divergence"]})
    assert values["kl_stderr"] == values["kl"] > 0
