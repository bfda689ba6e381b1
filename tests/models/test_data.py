"""Token blocks: seeded, apart from each other, from every kind of source."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from bitfront.errors import InvalidText
from bitfront.models import data, texts
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


def test_items_are_texts_of_their_right_choices(blocks, tmp_path, tiny_tokenizer):
    path = tmp_path / "items.jsonl"
    row = {"context": "Alice opened", "choices": ["of it", "the little door"], "answer": 1}
    path.write_text(f"{json.dumps(row)}\n" * 9)
    assert "Alice opened the little door\n\nAlice" in tiny_tokenizer.decode(blocks(path, 1)[0])


def test_a_bad_item_among_texts_is_named(refused, tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"context": "a", "choices": ["b", "c"], "answer": 2}))
    assert "item in line 1 of" in refused(path)
    assert "answer is 2" in refused(path)


def test_the_seed_chooses_the_blocks(blocks, calibration_file):
    assert torch.equal(blocks(calibration_file), blocks(calibration_file))
    assert not torch.equal(blocks(calibration_file), blocks(calibration_file, seed=1))


def test_pieces_of_a_long_text_lose_nothing(monkeypatch, tiny_tokenizer, calibration_file):
    monkeypatch.setattr(data, "_PIECE", 1000)
    text = calibration_file.read_text()
    assert "".join(data._pieces(text)) == text
    assert len(list(data._pieces(text))) > 20


def test_text_beyond_the_limit_is_not_read(monkeypatch, blocks, calibration_file, tmp_path):
    monkeypatch.setattr(texts, "MAX_CHARACTERS", 5000)
    start = tmp_path / "start.txt"
    start.write_text(calibration_file.read_text()[:5000])
    assert torch.equal(blocks(calibration_file, n=60), blocks(start, n=60))


# JSON lines


@pytest.mark.parametrize(
    "record",
    [
        {"text": "Alice was here. "},
        {"prompt": "Alice was", "completion": " here. "},
        {"prompt": "Alice was", "response": " here. "},
        {"prompt": "Alice was here. "},
        {"messages": [{"role": "user", "content": "Alice was here. "}]},
    ],
    ids=["text", "prompt+completion", "prompt+response", "prompt", "messages"],
)
@pytest.mark.parametrize("as_list", [False, True], ids=["lines", "list"])
def test_every_kind_of_record_gives_its_text(blocks, tmp_path, record, as_list):
    path, plain = tmp_path / "records.json", tmp_path / "plain.txt"
    records = [record] * 100
    path.write_text(json.dumps(records) if as_list else "\n".join(map(json.dumps, records)))
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


def test_only_line_feeds_end_a_record(blocks, tmp_path):
    path, plain = tmp_path / "records.jsonl", tmp_path / "plain.txt"
    text = "Alice\u2028was\x85here,\u2029she said. "
    lines = [json.dumps({"text": text}, ensure_ascii=False)] * 100
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    plain.write_text("\n\n".join([text] * 100), encoding="utf-8")
    assert torch.equal(blocks(path), blocks(plain))


def test_a_byte_order_mark_is_no_part_of_a_record(blocks, tmp_path):
    path, plain = tmp_path / "records.jsonl", tmp_path / "plain.txt"
    path.write_text('{"text": "Alice was here. "}\n' * 100, encoding="utf-8-sig")
    plain.write_text("\n\n".join(["Alice was here. "] * 100))
    assert torch.equal(blocks(path), blocks(plain))


def test_messages_go_through_the_chat_template(tmp_path, tiny_tokenizer):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "Who?"}] * 50}))
    tiny_tokenizer = type(tiny_tokenizer).from_pretrained(tiny_tokenizer.name_or_path)
    tiny_tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}> {{ m.content }}{% endfor %}"
    )
    tokens = token_blocks(str(path), tiny_tokenizer, 1, 64, 0)
    assert "<user> Who?<user> Who?" in tiny_tokenizer.decode(tokens[0])


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


def test_missing_file(refused, tmp_path):
    assert "No text file" in refused(tmp_path / "nothing")
    assert "No text file" in refused("nothing.txt")


def test_text_that_is_not_utf8(refused, tmp_path):
    (tmp_path / "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    assert "not UTF-8" in refused(tmp_path / "latin.txt")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "déjà vu"}'.encode("latin-1"))
    assert "Line 1 of" in refused(tmp_path / "latin.jsonl")


def test_bad_json_names_the_line(refused, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n\n{"text": \n')
    assert "Line 3 of" in refused(tmp_path / "bad.jsonl")


def test_unknown_keys_are_listed(refused, tmp_path):
    (tmp_path / "keys.jsonl").write_text('{"text": "a"}\n{"title": "b", "body": "c"}\n')
    message = refused(tmp_path / "keys.jsonl")
    assert "title, body in line 2" in message
    assert "text, messages or prompt" in message


# Datasets: no hub is reachable here, so a local folder in hub layout stands in for it.


@pytest.fixture
def dataset_folder(tmp_path, calibration_file):
    paragraphs = calibration_file.read_text().split("\n\n")
    for config in ("plain", "other"):
        (tmp_path / "books" / config).mkdir(parents=True)
        for split in ("train", "test"):
            rows = paragraphs if split == "train" else paragraphs[::-1]
            (tmp_path / "books" / config / f"{split}.jsonl").write_text(
                "\n".join(json.dumps({"text": row}) for row in rows)
            )
    (tmp_path / "books" / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {config}\n  data_files:\n"
            f"  - split: train\n    path: {config}/train.jsonl\n"
            f"  - split: test\n    path: {config}/test.jsonl\n"
            for config in ("plain", "other")
        )
        + "---\n"
    )
    return tmp_path / "books"


def test_a_dataset_gives_the_text_of_its_rows(blocks, dataset_folder):
    for split, source in (("train", "plain"), ("test", "plain:test")):
        rows = dataset_folder / "plain" / f"{split}.jsonl"
        assert torch.equal(blocks(f"{dataset_folder}:{source}"), blocks(rows))


def test_a_dataset_that_cannot_be_loaded(refused, dataset_folder):
    assert "Cannot load" in refused(f"{dataset_folder}:missing")


def test_an_unreachable_dataset_name(refused, monkeypatch):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "Cannot load 'no_such_dataset'" in refused("no_such_dataset")


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
