"""Makes `tests/data/tiny_bert`, a sentence encoder, in about two minutes on one core.

It learns to find the two halves of a sentence among those of others (the loss of Siamese encoders:
cross-entropy over the cosines within a batch). Texts and tokenizer are those of the tiny Llama.
"""

import re
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from train_tiny_llama import training_text
from transformers import AutoTokenizer, BertConfig, BertModel

from bitfront.models.sentences import PADDING, save_pooling
from bitfront.models.tasks import SentenceEmbedding

FOLDER = Path(__file__).parent
N_STEPS, N_SENTENCES, LENGTH, LEARNING_RATE, SHARPNESS = 600, 32, 32, 2e-3, 20.0


def untrained() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.05,
        pad_token_id=0,
    )
    return BertModel(config, add_pooling_layer=False)


def halves(text: str, tokenizer) -> list[tuple[list[int], list[int]]]:
    sentences = re.split(r"(?<=[.!?;])\s+", " ".join(text.split()))
    ids = [tokenizer(x)["input_ids"] for x in sentences]
    cut = [x[: 2 * LENGTH] for x in ids if len(x) >= 16]
    return [(x[: len(x) // 2], x[len(x) // 2 :]) for x in cut]


def padded(rows: list[list[int]]) -> torch.Tensor:
    made = torch.full((len(rows), max(map(len, rows))), PADDING)
    for row, ids in zip(made, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return made


def train(model: BertModel, pairs: list[tuple[list[int], list[int]]]) -> None:
    generator, task = torch.Generator().manual_seed(0), SentenceEmbedding()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=N_STEPS, pct_start=0.1
    )
    model.train()
    for step in range(N_STEPS):
        rows = torch.randint(len(pairs), (N_SENTENCES,), generator=generator).tolist()
        first, second = (task.outputs(model, padded([pairs[r][i] for r in rows])) for i in (0, 1))
        cosines = SHARPNESS * first[:, 0] @ second[:, 0].T
        loss = cross_entropy(cosines, torch.arange(len(rows)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}")
    model.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tiny_llama")
    model = untrained()
    train(model, halves(training_text(), tokenizer))
    model.save_pretrained(FOLDER / "tiny_bert")
    tokenizer.save_pretrained(FOLDER / "tiny_bert")
    save_pooling(FOLDER / "tiny_bert", SentenceEmbedding())
