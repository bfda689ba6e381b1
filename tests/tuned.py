"""Fine-tuned tiny Llamas, and what a uniform allocation of their differences loses."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM

from bitfront.evaluation import METRICS
from bitfront.evaluation.base import evaluate
from bitfront.inputs import load_searched, measured_samples
from bitfront.measurement import sizes_of
from bitfront.models.bank import WeightBank
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.pricing import cost_tables
from bitfront.quantizers.rtn import Rtn
from bitfront.space import SearchSpace

DATA = Path(__file__).parent / "data"
N_HELD_OUT = 24_000
N_STEPS, N_SEQUENCES, LENGTH, LEARNING_RATE = 40, 8, 64, 5e-4


def tune(base: Path, book: str, folder: Path) -> Path:
    """Train a model on for some steps on a book, but for its end; a second or two."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    text = (DATA / book).read_text()[:-N_HELD_OUT]
    tokens = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for _ in range(N_STEPS):
        starts = torch.randint(len(tokens) - LENGTH, (N_SEQUENCES, 1), generator=generator)
        batch = tokens[starts + torch.arange(LENGTH)]
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass
class Rounded:
    """A model in one format, its KL on the search text, and what it takes."""

    module: nn.Module
    space: SearchSpace
    bank: WeightBank
    kl: float
    nbytes: float


def rounded(study, base: str | None) -> Rounded:
    """Every layer in the last format of the study."""
    study = replace(study, base=base)
    model, space = load_searched(study)
    tokens = measured_samples(study, model, "calibration").inputs
    folder = tempfile.mkdtemp(prefix="tuned-")
    bank = WeightBank.build(folder, model.module, space, Rtn(), base=model.base_module)
    allocation = space.decode(space.uniform(len(space.formats) - 1))
    reference = Reference.of(model.module, tokens)
    with PatchedModel(model.module, bank) as patched:
        patched.apply(allocation)
        values = evaluate(
            model.module, reference, {"kl_divergence": METRICS.build("kl_divergence")}
        )
    nbytes = sizes_of(allocation, cost_tables(study, space))["bytes"]
    return Rounded(model.module, space, bank, values["kl"], nbytes)
