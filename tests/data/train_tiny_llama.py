"""Makes `tests/data/tiny_llama`, in about two minutes on one core.

Weights are stored rather than trained in each test run, so that claims about estimators are
numbers on the same model everywhere. Texts: two public-domain books; the last 24,000 characters of
each are never trained on.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).parent
N_HELD_OUT = 24_000
N_STEPS, N_SEQUENCES, LENGTH, LEARNING_RATE = 700, 8, 64, 6e-3


def training_text() -> str:
    books = [(FOLDER / name).read_text() for name in ("alice.txt", "persuasion.txt")]
    return "".join(book[:-N_HELD_OUT] for book in books)


def byte_level_bpe(text: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def untrained() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.05,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def train(model: LlamaForCausalLM, tokens: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=N_STEPS, pct_start=0.1
    )
    model.train()
    for _ in range(N_STEPS):
        starts = torch.randint(len(tokens) - LENGTH, (N_SEQUENCES, 1), generator=generator)
        batch = tokens[starts + torch.arange(LENGTH)]
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    tokenizer = byte_level_bpe(training_text())
    model = untrained()
    train(model, torch.tensor(tokenizer(training_text(), verbose=False)["input_ids"]))
    model.save_pretrained(FOLDER / "tiny_llama")
    tokenizer.save_pretrained(FOLDER / "tiny_llama")
