"""Log-likelihoods of choices: token by token, whatever they are batched with."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bitfront.errors import InvalidModel, InvalidText, NonFinite
from bitfront.formats import named
from bitfront.items import Item, read_items
from bitfront.kv_cache import KVCache
from bitfront.models import choices
from bitfront.models.cache_layers import with_caches
from bitfront.models.caches import RoundedCaches
from bitfront.models.choices import Questions
from bitfront.models.layers import search_space
from bitfront.models.load import LoadedModel


@pytest.fixture(scope="module")
def loaded(tiny_llama, tiny_tokenizer):
    return LoadedModel(tiny_llama, tiny_tokenizer, "digest", "tiny")


@pytest.fixture(scope="module")
def items(tiny_items):
    return read_items(tiny_items)


def by_hand(model, tokenizer, context, choice):
    """Sum of the log-probabilities of the tokens that `choice` adds, one forward pass a token."""
    n_context = len(tokenizer(context, add_special_tokens=False)["input_ids"])
    ids = tokenizer(f"{context} {choice}", add_special_tokens=False)["input_ids"]
    total = 0.0
    for at in range(n_context, len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:at]])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[ids[at]])
    return total


def test_every_choice_has_the_likelihood_of_its_tokens(loaded, items):
    found = Questions.of(items, loaded).asked(loaded.module)
    for index in (0, len(items) - 1):
        item = items[index]
        expected = [
            by_hand(loaded.module, loaded.tokenizer, context, choice)
            for context, choice in zip(item.contexts, item.choices, strict=True)
        ]
        row = found.log_likelihoods[index, : len(item.choices)]
        assert row.tolist() == pytest.approx(expected, abs=1e-4)
    assert found.n_bytes[0, 0] == len(items[0].choices[0].encode())


def test_a_trained_model_knows_how_its_book_goes_on(loaded, items):
    """The right choice is the text that follows; of three, guessing finds one."""
    assert Questions.of(items, loaded).asked(loaded.module).correct.mean() > 0.6


def test_batches_change_nothing_and_report_progress(loaded, items, monkeypatch):
    questions, seen = Questions.of(items, loaded), []
    together = questions.asked(loaded.module, lambda *step: seen.append(step))
    n = len(questions.choices)
    assert seen[-1] == (n, n)
    monkeypatch.setattr(choices, "_MAX_LOGITS", 1)
    alone = questions.asked(loaded.module)
    assert np.allclose(alone.log_likelihoods, together.log_likelihoods, atol=1e-4)


def test_rounded_caches_are_those_of_each_choice_alone(loaded, items, monkeypatch):
    """Nothing is padded, so that no choice moves another's window."""
    cache = KVCache(("int2_g32",), window=4, sinks=1)
    space = with_caches(
        search_space(loaded.module, (named("int8_g32"),), None, True), loaded.module, cache
    )
    questions = Questions.of(items[:4], loaded)
    with RoundedCaches(loaded.module, space) as rounded:
        rounded.apply({x.name: "int2_g32" for x in space.layers if x.cache})
        together = questions.asked(loaded.module)
        monkeypatch.setattr(choices, "_MAX_LOGITS", 1)
        alone = questions.asked(loaded.module)
    plain = questions.asked(loaded.module)
    assert np.allclose(alone.log_likelihoods, together.log_likelihoods, atol=1e-4)
    assert not np.allclose(alone.log_likelihoods, plain.log_likelihoods, atol=1e-2)


def test_spaces_at_the_end_of_a_context_belong_to_the_choice(loaded):
    plain, spaced = (
        Questions.of([Item((context,) * 2, ("the door", "of it"), 0)], loaded)
        for context in ("Alice opened", "Alice opened ")
    )
    assert [x.n_context for x in plain.choices] == [x.n_context for x in spaced.choices]
    assert spaced.choices[0].ids != plain.choices[0].ids  # two spaces


def test_without_a_context_the_first_token_is_that_of_the_model(loaded):
    questions = Questions.of([Item(("", ""), ("the door", "of it"), 0)], loaded)
    tokenizer = loaded.tokenizer
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert {x.ids[0] for x in questions.choices} == {first}
    assert {x.n_context for x in questions.choices} == {1}


def test_an_item_longer_than_the_positions_is_refused(loaded):
    longest = loaded.module.config.max_position_embeddings
    item = Item(("a b " * longest,) * 2, ("yes", "no"), 0)
    with pytest.raises(InvalidText, match=rf"Item 2 of quiz.*more than the {longest} positions"):
        Questions.of([Item(("a", "a"), ("b", "c"), 0), item], loaded, "quiz")


def test_a_token_that_the_model_lacks_is_refused(loaded):
    other = SimpleNamespace(
        module=loaded.module, tokenizer=loaded.tokenizer, n_rows=3, source="small"
    )
    with pytest.raises(InvalidText, match="has no row in the model's embedding of 3"):
        Questions.of([Item(("Alice", "Alice"), ("ran", "sat"), 0)], other)


def test_a_model_that_sees_later_tokens_is_refused(loaded, monkeypatch):
    monkeypatch.setattr(choices, "is_causal", lambda *_: False)
    with pytest.raises(InvalidModel, match="need a causal language model"):
        Questions.of([Item(("Alice", "Alice"), ("ran", "sat"), 0)], loaded)


def test_an_overflow_is_named(loaded, items):
    questions = Questions.of(items[:2], loaded)
    head = loaded.module.get_output_embeddings().weight
    with torch.no_grad():
        kept = head[0, 0].item()
        head[0, 0] = torch.nan
        try:
            with pytest.raises(NonFinite, match="of item"):
                questions.asked(loaded.module)
        finally:
            head[0, 0] = kept
