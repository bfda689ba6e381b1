"""Sentence encoders: pooling as a folder states it, lines of a text as sentences."""

import json

import pytest
import torch

from bitfront.errors import InvalidModel, InvalidText
from bitfront.models.load import load_model
from bitfront.models.sentences import (
    check_other_sentences,
    is_sentence_encoder,
    pooling_of,
    save_pooling,
    sentence_tokens,
)
from bitfront.models.tasks import SentenceEmbedding, task_of


def stated(folder, pooling=None, kinds=("Transformer", "Pooling", "Normalize")):
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True, "include_prompt": True}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_pooling_is_that_of_the_folder(pooling, expected, tmp_path):
    assert pooling_of(stated(tmp_path, pooling)) == SentenceEmbedding(expected)


def test_without_a_word_the_mean_is_taken(tmp_path):
    assert not is_sentence_encoder(tmp_path)
    assert pooling_of(tmp_path) == SentenceEmbedding("mean")


@pytest.mark.parametrize("task", [SentenceEmbedding("mean"), SentenceEmbedding("cls")])
def test_a_written_pooling_is_read_again(task, tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')
    save_pooling(tmp_path, task)
    assert is_sentence_encoder(tmp_path)
    assert pooling_of(tmp_path) == task


@pytest.mark.parametrize(
    ("pooling", "kinds", "message"),
    [
        ({"pooling_mode_lasttoken": True}, ("Transformer", "Pooling"), "pools by lasttoken"),
        ({"pooling_mode_mean_tokens": False}, ("Transformer", "Pooling"), "pools by nothing"),
        (None, ("Transformer", "Pooling"), "lacks 1_Pooling/config.json"),
        ({"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Dense"), "names Dense"),
    ],
)
def test_what_would_embed_otherwise_is_refused(pooling, kinds, message, tmp_path):
    with pytest.raises(InvalidModel, match=message):
        pooling_of(stated(tmp_path, pooling, kinds))


def test_a_damaged_statement_is_refused(tmp_path):
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(InvalidModel, match="Cannot read"):
        pooling_of(tmp_path)


def test_an_encoder_is_loaded_with_its_pooling_and_without_a_pooler(bert_folder):
    model = load_model(str(bert_folder), dtype="float32", device="cpu")
    assert task_of(model.module) == SentenceEmbedding("mean")
    assert model.module.pooler is None
    assert model.n_rows == 512


def test_sentences_are_different_lines_in_an_order_of_the_seed(tiny_tokenizer, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(["one two", "", "  one two  ", "three", "four and five"]))
    tokens = sentence_tokens(str(path), tiny_tokenizer, 3, 32, 0)
    texts = {tiny_tokenizer.decode(row[row >= 0]) for row in tokens}
    assert texts == {"one two", "three", "four and five"}
    orders = {tuple(sentence_tokens(str(path), tiny_tokenizer, 3, 32, s)[:, 0].tolist())
              for s in range(8)}  # fmt: skip
    assert len(orders) > 1
    assert sentence_tokens(str(path), tiny_tokenizer, 3, 2, 0).shape[1] == 2
    with pytest.raises(InvalidText, match=r"has 3 sentences .* 4 are needed"):
        sentence_tokens(str(path), tiny_tokenizer, 4, 32, 0)


def test_shared_sentences_are_refused_however_they_are_padded():
    first = torch.tensor([[1, 2, 3, -1], [4, 5, -1, -1]])
    second = torch.tensor([[4, 5, -1], [1, 2, 4]])
    with pytest.raises(InvalidText, match="'a' and evaluation text 'b' share 1 sentences"):
        check_other_sentences(first, second, ("a", "b"))
    check_other_sentences(first, second[1:], ("a", "b"))
