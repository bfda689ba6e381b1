"""Token blocks: seeded, apart from each other, from every kind of source."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from bitfront.errors import InvalidText
from bitfront.models import data
from bitfront.models.data import check_disjoint, digest, starting_ids, token_blocks

DIGEST = "80d652f1c9c2b260175566eb3d0e0331412a144c0f1c28518d93d1e6554ad61c"
"""Of the 4 blocks of 32 tokens that seed 0 takes from the calibration text."""


@pytest.fixture
def blocks(tiny_tokenizer):
    def take(source, n=4, length=32, seed=0):
        return token_blocks(str(source), tiny_tokenizer, n, length, seed)

    return take


@pytest.fixture
def refused(blocks):
    def message(source, **sizes):
        with pytest.raises(InvalidText) as caught:
            blocks(source, **sizes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


def test_blocks_are_consecutive_tokens_of_the_text(blocks, calibration_file, tiny_tokenizer):
    taken = blocks(calibration_file)
    assert taken.shape == (4, 32)
    assert taken.dtype == torch.int64
    text = calibration_file.read_text()
    for block in taken:
        assert tiny_tokenizer.decode(block) in text


def with_bos(tokenizer):
    """The same tokenizer, but its default encoding starts with BOS, as that of Gemma and Llama."""
    return AutoTokenizer.from_pretrained(
        tokenizer.name_or_path, add_bos_token=True, bos_token="<|endoftext|>"
    )


def test_every_block_starts_with_bos_where_encoding_does(blocks, calibration_file, tiny_tokenizer):
    tokenizer = with_bos(tiny_tokenizer)
    assert tokenizer.bos_token_id == 0
    taken = token_blocks(str(calibration_file), tokenizer, 4, 33, 0)
    assert taken.shape == (4, 33)
    assert torch.equal(taken[:, :1], torch.zeros(4, 1, dtype=torch.int64))
    assert torch.equal(taken[:, 1:], blocks(calibration_file, n=4, length=32))


def test_blocks_hold_only_text_where_encoding_adds_no_bos(calibration_file, tiny_tokenizer):
    named = AutoTokenizer.from_pretrained(tiny_tokenizer.name_or_path, bos_token="<|endoftext|>")
    assert named.bos_token_id == 0
    for tokenizer in (tiny_tokenizer, named):
        assert starting_ids(tokenizer) == []
        assert digest(token_blocks(str(calibration_file), tokenizer, 4, 32, 0)) == DIGEST


def test_bos_takes_its_place_of_the_tokens_that_are_needed(tmp_path, tiny_tokenizer):
    path, tokenizer = tmp_path / "short.txt", with_bos(tiny_tokenizer)
    path.write_text("Alice was beginning")
    n_tokens = len(tiny_tokenizer("Alice was beginning")["input_ids"])
    assert len(token_blocks(str(path), tokenizer, 1, n_tokens + 1, 0)[0]) == n_tokens + 1
    with pytest.raises(InvalidText, match=f"{n_tokens} tokens, {n_tokens + 1} are needed"):
        token_blocks(str(path), tokenizer, 1, n_tokens + 2, 0)


def test_the_seed_chooses_the_blocks(blocks, calibration_file):
    assert torch.equal(blocks(calibration_file), blocks(calibration_file))
    assert not torch.equal(blocks(calibration_file), blocks(calibration_file, seed=1))


def test_pieces_of_a_long_text_lose_nothing(monkeypatch, tiny_tokenizer, calibration_file):
    monkeypatch.setattr(data, "_PIECE", 1000)
    text = calibration_file.read_text()
    assert "".join(data._pieces(text)) == text
    assert len(list(data._pieces(text))) > 20


def test_records_are_joined_by_an_empty_line(blocks, tmp_path):
    path, plain = tmp_path / "records.jsonl", tmp_path / "plain.txt"
    path.write_text('{"text": "Alice was here. "}\n' * 100)
    plain.write_text("\n\n".join(["Alice was here. "] * 100))
    assert torch.equal(blocks(path), blocks(plain))


@pytest.mark.parametrize("as_list", [False, True], ids=["lines", "list"])
def test_records_beyond_the_limit_are_not_read(monkeypatch, blocks, tmp_path, as_list):
    path, plain = tmp_path / "records.jsonl", tmp_path / "plain.txt"
    texts = [f"Alice had {n} cats and no dog. " for n in range(1000)]
    records = [{"text": text} for text in texts]
    path.write_text(json.dumps(records) if as_list else "\n".join(map(json.dumps, records)))
    plain.write_text("\n\n".join(texts))
    monkeypatch.setattr(data, "MAX_CHARACTERS", 5000)
    assert torch.equal(blocks(path, n=60), blocks(plain, n=60))


# Refusals


def test_too_short_says_how_many_there_are_and_are_needed(refused, tmp_path, tiny_tokenizer):
    path = tmp_path / "short.txt"
    path.write_text("Alice was beginning")
    n_tokens = len(tiny_tokenizer("Alice was beginning")["input_ids"])
    message = refused(path, n=3, length=64)
    assert f"{n_tokens} tokens, 192 are needed (3 blocks of 64)" in message


def test_empty_text(refused, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    assert "0 tokens" in refused(tmp_path / "empty.txt")


# Digest and disjointness


def test_digest_sees_ids_and_shape():
    tokens = torch.arange(12).view(3, 4)
    assert digest(tokens) == digest(tokens.clone())
    assert digest(tokens) != digest(tokens.view(4, 3))
    assert digest(tokens) != digest(tokens.flip(0))


def ids(*shape, seed=0):
    return torch.randint(50_000, shape, generator=torch.Generator().manual_seed(seed))


def test_shared_blocks_are_refused(blocks, calibration_file, evaluation_file):
    calibration = blocks(calibration_file, n=8)
    check_disjoint(calibration, blocks(evaluation_file, n=8))
    with pytest.raises(InvalidText, match="share 32 tokens in a row"):
        check_disjoint(calibration, torch.cat([blocks(evaluation_file), calibration[2:3]]))


def test_a_short_block_inside_a_long_one_is_shared(blocks, calibration_file):
    long = blocks(calibration_file, n=1, length=64)
    for short in (long[:, 7:39], long[:, 40:49]):
        for pair in ((long, short), (short, long)):
            with pytest.raises(InvalidText, match=f"share {short.shape[1]} tokens in a row"):
                check_disjoint(*pair)


def test_the_same_text_cut_elsewhere_is_shared():
    text = ids(4096)
    calibration, evaluation = text.unfold(0, 96, 96), text[77:].unfold(0, 96, 96)
    with pytest.raises(InvalidText, match="give two different texts"):
        check_disjoint(calibration, evaluation)


@pytest.mark.parametrize("length", [31, 32])
def test_texts_overlap_from_32_tokens_in_a_row(length):
    calibration, evaluation = ids(4, 256), ids(6, 100, seed=1)
    evaluation[5, 60 : 60 + length] = calibration[2, 11 : 11 + length]
    if length < 32:
        check_disjoint(calibration, evaluation)
    else:
        with pytest.raises(InvalidText, match="in 1 place"):
            check_disjoint(calibration, evaluation)


def test_what_every_record_starts_with_is_not_shared_text():
    calibration, evaluation = ids(8, 256), ids(8, 256, seed=1)
    system_prompt = ids(48, seed=2)
    calibration[::2, 20:68] = evaluation[1::2, 100:148] = system_prompt
    check_disjoint(calibration, evaluation)
    with pytest.raises(InvalidText):  # whole blocks count however often they come
        check_disjoint(calibration, system_prompt.repeat(3, 1))


@pytest.mark.parametrize("n_shared", [31, 32])
def test_a_shared_bos_is_no_part_of_an_overlap(n_shared):
    bos = torch.zeros(4, 1, dtype=torch.int64)
    calibration, evaluation = ids(4, 64), ids(4, 64, seed=1)
    evaluation[2, :n_shared] = calibration[3, :n_shared]
    pair = [torch.cat([bos, text], dim=1) for text in (calibration, evaluation)]
    if n_shared < 32:
        check_disjoint(*pair, n_starting=1)
    else:
        with pytest.raises(InvalidText, match="share 32 tokens in a row, in 1 place"):
            check_disjoint(*pair, n_starting=1)


def test_a_short_block_inside_a_long_one_is_shared_whatever_bos_precedes_it():
    bos = torch.zeros(1, 1, dtype=torch.int64)
    long = ids(1, 64)
    pair = [torch.cat([bos, text], dim=1) for text in (long, long[:, 40:49])]
    with pytest.raises(InvalidText, match="share 9 tokens in a row"):
        check_disjoint(*pair, n_starting=1)


def test_the_shared_texts_are_named():
    tokens = ids(2, 64)
    with pytest.raises(InvalidText, match=r"'a\.txt' and evaluation text 'b\.txt'") as caught:
        check_disjoint(tokens, tokens, "a.txt", "b.txt")
    assert "\n" not in str(caught.value)
