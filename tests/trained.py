"""What tests share: tiny trained models with texts and images unknown to them, and databases.

Models are made by programs of `tests/data`; every test of `store` runs on SQLite and PostgreSQL.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import N_TRAINED, grey, small_digits
from servers import database, postgres
from torch import nn
from transformers import (
    AutoTokenizer,
    BertModel,
    EfficientNetForImageClassification,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3MoeForCausalLM,
    ViTForImageClassification,
)

from bitfront import Budget, Study, TextSource
from bitfront.models.experts import separate_experts
from bitfront.models.sentences import sentence_tokens
from bitfront.models.tasks import SentenceEmbedding, set_task
from bitfront.store import Store

DATA = Path(__file__).parent / "data"
N_HELD_OUT = 24_000


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    """Hugging Face folder of the tiny Llama with its tokenizer; copy it before changing a file."""
    return DATA / "tiny_llama"


@pytest.fixture(scope="session")
def tiny_llama(tiny_folder: Path) -> nn.Module:
    """4 blocks, 64 wide, 512 tokens, tied embedding, float32; leave it as it is."""
    return LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def moe_folder() -> Path:
    """Hugging Face folder of the tiny Qwen3-MoE with its tokenizer, that of the tiny Llama."""
    return DATA / "tiny_moe"


@pytest.fixture(scope="session")
def tiny_moe(moe_folder: Path) -> nn.Module:
    """2 blocks, 64 wide, 8 experts of which 2 are active, made separate; leave it as it is."""
    model = Qwen3MoeForCausalLM.from_pretrained(moe_folder, dtype=torch.float32).eval()
    separate_experts(model)
    return model


@pytest.fixture(scope="session")
def vit_folder() -> Path:
    """Hugging Face folder of the tiny ViT with its image processor."""
    return DATA / "tiny_vit"


@pytest.fixture(scope="session")
def tiny_vit(vit_folder: Path) -> nn.Module:
    """3 blocks, 64 wide, reads digits of 32 x 32 pixels; leave it as it is."""
    return ViTForImageClassification.from_pretrained(vit_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def unseen_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels `[597, 3, 32, 32]` and labels of digits that the tiny ViT was not trained on."""
    pixels, labels = small_digits()
    return pixels[N_TRAINED:], labels[N_TRAINED:]


@pytest.fixture(scope="session")
def digit_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `calibration` and `evaluation`, 80 and 60 unseen digits by label."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("digits")
    values, labels = grey()
    for index in range(N_TRAINED, N_TRAINED + 140):
        part = "calibration" if index < N_TRAINED + 80 else "evaluation"
        path = folder / part / f"digit {int(labels[index])}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values[index].numpy()).save(path)
    return folder


@pytest.fixture(scope="session")
def bert_folder() -> Path:
    """Hugging Face folder of the tiny sentence encoder with its tokenizer and pooling."""
    return DATA / "tiny_bert"


@pytest.fixture(scope="session")
def tiny_bert(bert_folder: Path) -> nn.Module:
    """3 blocks, 64 wide, mean pooling, told its task; leave it as it is."""
    model = BertModel.from_pretrained(
        bert_folder, dtype=torch.float32, add_pooling_layer=False
    ).eval()
    set_task(model, SentenceEmbedding())
    return model


@pytest.fixture(scope="session")
def sentences(tiny_tokenizer: PreTrainedTokenizerFast, sentence_files: Path) -> torch.Tensor:
    """Unseen sentences, int64 `[40, length]`, -1 after their ends."""
    return sentence_tokens(str(sentence_files / "calibration.txt"), tiny_tokenizer, 40, 32, 0)


@pytest.fixture(scope="session")
def sentence_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts `calibration.txt` and `evaluation.txt` of a sentence a line, unseen in training."""
    folder = tmp_path_factory.mktemp("sentences")
    for name, book in (("calibration", "alice.txt"), ("evaluation", "persuasion.txt")):
        text = " ".join((DATA / book).read_text()[-N_HELD_OUT:].split())
        lines = [x for x in re.split(r"(?<=[.!?;]) ", text) if len(x) > 40]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def convnet_folder() -> Path:
    """Hugging Face folder of the tiny EfficientNet."""
    return DATA / "tiny_convnet"


@pytest.fixture(scope="session")
def tiny_convnet(convnet_folder: Path) -> nn.Module:
    """3 blocks with depthwise kernels, 10 classes of digits, float32; leave it as it is."""
    kind = EfficientNetForImageClassification
    return kind.from_pretrained(convnet_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def digit_pixels(unseen_digits: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Images that it was not trained on, float32 `[597, 3, 32, 32]`."""
    return unseen_digits[0]


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the tiny Llama."""
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="session")
def calibration_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unseen end of one book: about 10,000 tokens."""
    return _end_of("alice.txt", tmp_path_factory.mktemp("calibration"))


@pytest.fixture(scope="session")
def evaluation_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unseen end of the other book: about 10,000 tokens."""
    return _end_of("persuasion.txt", tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="session")
def tiny_study(
    tiny_folder: Path, calibration_file: Path, evaluation_file: Path
) -> Callable[..., Study]:
    """Makes studies of the tiny Llama at 4.2bpw on few blocks of 64 tokens."""

    def make(n_calibration: int, n_evaluation: int, **choices: Any) -> Study:
        return Study(
            model=str(tiny_folder),
            budget=Budget.parse("4.2bpw"),
            calibration=TextSource(str(calibration_file), n_calibration, 64),
            evaluation=TextSource(str(evaluation_file), n_evaluation, 64),
            pinned="int8_g32",
            **choices,
        )

    return make


@pytest.fixture(scope="session")
def tiny_tokens(tiny_tokenizer: PreTrainedTokenizerFast, calibration_file: Path) -> torch.Tensor:
    """Calibration blocks, int64 `[16, 128]`."""
    tokens = tiny_tokenizer(calibration_file.read_text(), verbose=False)["input_ids"]
    return torch.tensor(tokens[: 16 * 128]).view(16, 128)


@pytest.fixture(scope="session")
def tiny_items(evaluation_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 items: how does a sentence of the book go on? Wrong: its words reversed, other words."""
    words = evaluation_file.read_text().split()
    path = tmp_path_factory.mktemp("items") / "book.jsonl"
    with path.open("w") as file:
        for index, start in enumerate(range(40, 40 + 24 * 60, 60)):
            true = words[start : start + 4]
            choices = [true, [x[::-1] for x in true], words[start + 1000 : start + 1005]]
            right = index % 3
            choices[0], choices[right] = choices[right], choices[0]
            context = " ".join(words[start - 12 : start])
            row = {"context": context, "choices": [" ".join(x) for x in choices], "answer": right}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server for the tests of this process."""
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'bitfront.db'}"
    else:
        with database(request.getfixturevalue("postgres_url")) as url:
            yield url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A store with its tables, whose leases outlast any test."""
    store = Store(database_url)
    store.db.upgrade()
    yield store
    store.db.pool.dispose()


def _end_of(book: str, folder: Path) -> Path:
    path = folder / book
    path.write_text((DATA / book).read_text()[-N_HELD_OUT:])
    return path
