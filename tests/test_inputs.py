"""What the texts of a study must be, and the blocks that are cut from them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bitfront import Study, TextSource
from bitfront.errors import InvalidArgument, InvalidText
from bitfront.inputs import prepare


@pytest.fixture
def study(tiny_study) -> Study:
    return tiny_study(4, 6, formats=("int2_g32", "int8_g32"), n_search_sequences=3)


def test_calibrating_on_the_evaluation_text_is_refused(study: Study) -> None:
    leaking = replace(study, evaluation=study.calibration)
    with pytest.raises(InvalidText, match="two different texts"):
        prepare(leaking)


def test_a_model_whose_encoding_starts_with_bos_reads_it_before_every_block(
    study: Study, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(study.model, tmp_path / "model"))
    bos = "<|endoftext|>"
    config, path = model / "tokenizer_config.json", model / "tokenizer.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"bos_token": bos}))
    fields = json.loads(path.read_text())
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    fields["post_processor"]["single"].insert(0, first)
    fields["post_processor"]["special_tokens"] = {bos: {"id": bos, "ids": [0], "tokens": [bos]}}
    path.write_text(json.dumps(fields))
    inputs = prepare(replace(study, model=str(model)))
    for tokens in (inputs.estimation, inputs.calibration, inputs.evaluation):
        assert tokens.shape[1] == 64
        assert tokens[:, 0].eq(0).all()
        assert tokens[:, 1:].ne(0).all()


def test_calibrating_on_a_shifted_evaluation_text_is_refused(study: Study, tmp_path: Path) -> None:
    shifted = tmp_path / "shifted.txt"
    shifted.write_text("Hm. " + Path(study.calibration.source).read_text())
    with pytest.raises(InvalidText, match="two different texts"):
        prepare(replace(study, evaluation=TextSource(str(shifted), 100, 64)))


@pytest.fixture
def spare(study: Study, tmp_path: Path) -> Study:
    """The study of a model whose tokenizer has a token, `<image>`, that its embedding lacks."""
    model = Path(shutil.copytree(study.model, tmp_path / "model"))
    path = model / "tokenizer.json"
    fields = json.loads(path.read_text())
    fields["added_tokens"].append({**fields["added_tokens"][0], "id": 512, "content": "<image>"})
    path.write_text(json.dumps(fields))
    return replace(study, model=str(model))


def test_a_token_without_a_row_does_no_harm_where_no_text_has_it(
    study: Study, spare: Study
) -> None:
    expected, found = prepare(study), prepare(spare)
    assert torch.equal(found.calibration, expected.calibration)


@pytest.mark.parametrize("text", ["calibration", "evaluation"])
def test_a_text_with_a_token_without_a_row_is_refused(
    spare: Study, text: str, tmp_path: Path
) -> None:
    source: TextSource = getattr(spare, text)
    path = tmp_path / "images.txt"
    path.write_text(Path(source.source).read_text().replace("\n", "<image>"))
    with pytest.raises(InvalidText) as refused:
        prepare(replace(spare, **{text: replace(source, source=str(path))}))
    assert str(refused.value).startswith(f"{path} has token id 512, ")
    assert "has 512 rows: its tokenizer is of another model" in str(refused.value)


def test_a_tokenizer_of_more_ids_than_the_model_has_is_refused_by_the_text(
    study: Study, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(study.model, tmp_path / "model"))
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=300, num_attention_heads=4, bos_token_id=0, **sizes)
    LlamaForCausalLM(config).save_pretrained(model)
    with pytest.raises(InvalidText, match=r"token id \d+, .* has 300 rows") as refused:
        prepare(replace(study, model=str(model)))
    assert "\n" not in str(refused.value)


def test_sequences_longer_than_the_model_has_positions_are_refused(study: Study) -> None:
    """By the name that requests and files of a study have for it, too."""
    long = {
        name: replace(getattr(study, name), sequence_length=100_000)
        for name in ("calibration", "evaluation")
    }
    with pytest.raises(InvalidArgument, match=r"give a sequence_length of \d+ or less"):
        prepare(replace(study, **long))
