"""Reference: KL over the top K and the tail, checked against the dense definition."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BertConfig, MixtralConfig

from bitfront.errors import InvalidArgument, InvalidText, MismatchedArtifact, NonFinite
from bitfront.models.reference import Reference, is_causal
from bitfront.models.tasks import scored_outputs

N, LENGTH, VOCABULARY = 2, 40, 300


class Logits(nn.Module):
    """A model that gives fixed logits `[n_vocabulary, vocabulary]`, one row per input token."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.table[input_ids])


@pytest.fixture
def table():
    return 4 * torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokens():
    return torch.randint(VOCABULARY, (N, LENGTH), generator=torch.Generator().manual_seed(1))


def noisy(logits, scale, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return logits + scale * torch.randn(logits.shape, generator=generator)


def merged_kl(p, q, indices):
    """Definition in float64: KL over the outcomes `indices` and "any other"."""
    p, q = (x.double().softmax(dim=-1) for x in (p, q))
    top_p, top_q = (x.gather(-1, indices.long()) for x in (p, q))
    rest = torch.ones_like(p).scatter_(-1, indices.long(), 0.0)
    tail_p, tail_q = ((x * rest).sum(dim=-1) for x in (p, q))
    return (top_p * (top_p / top_q).log()).sum(dim=-1) + tail_p * (tail_p / tail_q).log()


def test_a_text_worse_than_guessing_is_refused_where_asked(table, tokens):
    guessing = 2 * VOCABULARY
    Reference.of(Logits(table / 400), tokens, max_perplexity=guessing)  # as random weights do
    Reference.of(Logits(table), tokens)
    with pytest.raises(InvalidText, match="worse than guessing"):
        Reference.of(Logits(table), tokens, max_perplexity=guessing)


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,  # tokens that hardly attend to each other would tell nothing
}


def tiny(config, dtype, **sizes):
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config(**SIZES, **sizes), dtype=dtype).eval()
    with torch.no_grad():
        made.get_output_embeddings().weight.mul_(20)  # as wrong as a model can be, and as sure
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_worse_than_guessing_is_no_fault_of_a_model_that_sees_the_next_token(tokens, dtype):
    """BERT's perplexity from left to right is in the millions: it was not trained for that."""
    two_sided, causal = (tiny(BertConfig, dtype, is_decoder=x) for x in (False, True))
    Reference.of(two_sided, tokens, max_perplexity=2 * VOCABULARY)
    with pytest.raises(InvalidText, match="worse than guessing"):
        Reference.of(causal, tokens, max_perplexity=2 * VOCABULARY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("text", ["one word", "two tokens", "other words"])
def test_routing_among_experts_is_no_sight_of_later_tokens(tokens, text, dtype):
    model = tiny(MixtralConfig, dtype, num_local_experts=4, num_key_value_heads=2)
    read = {
        "one word": torch.zeros_like(tokens),
        "two tokens": tokens[:, :2],
        "other words": tokens,
    }
    with pytest.raises(InvalidText, match="worse than guessing"):
        Reference.of(model, read[text], max_perplexity=1.5)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 10.0])
@pytest.mark.parametrize("top_k", [1, 7, 299])
def test_kl_is_that_of_the_merged_outcomes(table, tokens, top_k, scale):
    reference = Reference.of(Logits(table), tokens, top_k)
    for index in range(N):
        p = table[tokens[index, :-1]]
        q = noisy(p, scale)
        expected = merged_kl(p, q, reference.indices[index])
        torch.testing.assert_close(reference.kl(q, index).double(), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("top_k", [VOCABULARY, 512])
def test_kl_is_dense_when_the_vocabulary_is_small(table, tokens, top_k):
    reference = Reference.of(Logits(table), tokens, top_k)
    assert reference.top_k == VOCABULARY
    p = table[tokens[0, :-1]].double().log_softmax(dim=-1)
    q = noisy(table[tokens[0, :-1]], 1.0)
    expected = (p.exp() * (p - q.double().log_softmax(dim=-1))).sum(dim=-1)
    torch.testing.assert_close(reference.kl(q, 0).double(), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("top_k", [1, 64, 512])
@pytest.mark.parametrize("sharpness", [0.01, 1.0, 30.0])
def test_equal_predictions_have_zero_kl(table, tokens, top_k, sharpness):
    model = Logits(sharpness * table)
    reference = Reference.of(model, tokens, top_k)
    assert reference.kl(scored_outputs(model, tokens[1]), 1).abs().max() == 0


@pytest.mark.parametrize("top_k", [16, 512])
def test_kl_is_never_negative_beyond_rounding(table, tokens, top_k):
    reference = Reference.of(Logits(table), tokens, top_k)
    for seed, scale in enumerate((1e-5, 1e-3, 1e-2, 0.1)):
        kl = reference.kl(noisy(table[tokens[0, :-1]], scale, seed), 0)
        assert kl.min() > -1e-9
        assert kl.double().mean() > 0


def test_a_vanishing_tail_keeps_its_digits(table, tokens):
    # 1 - sum of the top probabilities is 0 in float32 here; the tail itself is about 1e-14.
    sharp = table.clone()
    sharp.scatter_(-1, sharp.topk(5).indices, 40.0)
    reference = Reference.of(Logits(sharp), tokens, 5)
    log_p = sharp[tokens[0, :-1]].double().log_softmax(dim=-1)
    rest = log_p.scatter(-1, reference.indices[0].long(), -torch.inf).logsumexp(dim=-1)
    assert rest.max() < -20
    torch.testing.assert_close(reference.log_tail[0].double(), rest, rtol=1e-5, atol=1e-5)


def test_scores_every_position_that_has_a_next_token(tiny_llama, tiny_tokens):
    reference = Reference.of(tiny_llama, tiny_tokens[:2], top_k=32)
    length = tiny_tokens.shape[1]
    assert reference.log_probs.shape == (2, length - 1, 32)
    assert torch.equal(reference.next_tokens(1), tiny_tokens[1, 1:])
    with torch.no_grad():
        logits = tiny_llama(tiny_tokens[1:2]).logits[0, :-1]
    assert torch.equal(reference.argmax(1), logits.argmax(dim=-1))


def test_judged_logits_are_left_untouched_and_may_be_bfloat16(table, tokens):
    reference = Reference.of(Logits(table), tokens, 16)
    logits = noisy(table[tokens[0, :-1]], 0.1).to(torch.bfloat16)
    kept = logits.clone()
    exact = reference.kl(logits.float(), 0)
    assert torch.equal(reference.kl(logits, 0), exact)
    assert torch.equal(logits, kept)


def test_gradient_is_the_difference_of_the_predictions(table, tokens):
    # d KL(p || softmax(z)) / dz = softmax(z) - p, dense case.
    reference = Reference.of(Logits(table), tokens, VOCABULARY)
    p = table[tokens[0, :-1]]
    z = noisy(p, 1.0).requires_grad_()
    reference.kl(z, 0).sum().backward()
    torch.testing.assert_close(z.grad, z.detach().softmax(-1) - p.softmax(-1), rtol=1e-3, atol=1e-5)


def test_whether_a_model_is_causal_is_asked_where_the_model_is():
    class Elsewhere(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, device="meta"))

        def forward(self, tokens, use_cache):
            assert tokens.device.type == "meta"
            return SimpleNamespace(logits=torch.zeros(*tokens.shape, 4))

    assert is_causal(Elsewhere(), torch.arange(8))


def test_save_and_load_round_trip(table, tokens, tmp_path):
    reference = Reference.of(Logits(table), tokens, 16)
    reference.save(tmp_path / "reference.safetensors", "model-digest")
    loaded = Reference.load(tmp_path / "reference.safetensors", "model-digest", tokens)
    q = noisy(table[tokens[0, :-1]], 1.0)
    assert torch.equal(loaded.kl(q, 0), reference.kl(q, 0))
    assert torch.equal(loaded.tokens, tokens)


def test_load_refuses_another_model_text_or_a_damaged_file(table, tokens, tmp_path):
    path = tmp_path / "reference.safetensors"
    Reference.of(Logits(table), tokens, 16).save(path, "model-digest")
    with pytest.raises(MismatchedArtifact, match="another model or text"):
        Reference.load(path, "other-digest", tokens)
    with pytest.raises(MismatchedArtifact, match="another model or text"):
        Reference.load(path, "model-digest", tokens + 1)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(MismatchedArtifact, match="Cannot read"):
        Reference.load(path, "model-digest", tokens)


def test_non_finite_predictions_are_refused(table):
    table[3] = torch.nan
    with pytest.raises(NonFinite, match="sequence 1"):
        Reference.of(Logits(table), torch.tensor([[1, 2, 4], [1, 3, 4]]))


def test_top_k_must_be_positive(table, tokens):
    with pytest.raises(InvalidArgument, match="top_k is 0"):
        Reference.of(Logits(table), tokens, 0)


def test_nan_in_judged_logits_stays_nan(table, tokens):
    reference = Reference.of(Logits(table), tokens, 16)
    logits = table[tokens[0, :-1]].clone()
    logits[5, 7] = torch.nan
    assert reference.kl(logits, 0)[5].isnan()
    assert reference.kl(logits, 0)[4].isfinite()
