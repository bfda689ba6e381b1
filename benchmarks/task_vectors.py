"""Bits over the difference of fine-tuned models and their base, against bits over the weights.

    python benchmarks/task_vectors.py BASE TEXT OTHER_TEXT --out DIRECTORY [--steps 150]
        [--budgets 1.5,3.0] [--formats zero,sign_g32,int2_g32,int3_g32,int4_g32] [--shared int4_g32]

The base is fine-tuned on the first 80 % of each text. For each of the two models a search within
every budget (bits per weight, as stored) chooses formats of its weights, of its difference from the
base, and of what is left of that beside the mean difference of both, which is packed once in
`--shared` (residual task vectors). Calibrated on the next tenth of its text, judged on the last.
Uniform allocations are those of the same study. Appends to `benchmarks/results/task_vectors.csv`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from record import Record
from studies import SIZES, parser
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitfront import Budget, Study, TextSource, run_study
from bitfront.results import Results
from bitfront.sharing import share_offset
from bitfront.trial import Trial

COLUMNS = (
    *("model", "task", "form", "choice", "budget", "kl", "kl_stderr", "perplexity", "bytes"),
    *("bits_per_weight", "shared_bytes", "shared_format", "relative_difference", "steps"),
    *("learning_rate", "n_trials", "seed", "n_judged_tokens", "sequence_length"),
)
SHARES = (("train", 0.0, 0.8), ("calibration", 0.8, 0.9), ("evaluation", 0.9, 1.0))
N_SEQUENCES = 4


def main() -> None:
    """Fine-tune on both texts, then search each model in each form and record the answers."""
    arguments = parse()
    record = Record("task_vectors", COLUMNS)
    tasks = {Path(x).stem: Path(x) for x in (arguments.calibration, arguments.evaluation)}
    texts = {name: cut(path, arguments.out / "texts" / name) for name, path in tasks.items()}
    tuned = {name: tune(arguments, texts[name]["train"], arguments.out / name) for name in tasks}
    shared = arguments.out / "shared"
    models = [str(folder) for folder in tuned.values()]
    nbytes = share_offset(models, arguments.model, shared, arguments.shared, arguments.pin, "cpu")
    bases = {"weights": None, "offset": arguments.model, "residual": str(shared)}
    for task, folder in tuned.items():
        distance = relative_difference(Path(arguments.model), folder)
        said = {"task": task, "relative_difference": distance}
        for form, base in bases.items():
            about = said | {"form": form}
            if form == "residual":
                about |= {"shared_bytes": nbytes, "shared_format": arguments.shared}
            add_rows(record, arguments, study_of(arguments, folder, base, texts[task]), about)


def cut(text: Path, folder: Path) -> dict[str, Path]:
    """Parts of a text in files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = text.read_text(encoding="utf-8")
    made = {}
    for name, start, end in SHARES:
        made[name] = folder / f"{name}.txt"
        made[name].write_text(whole[int(start * len(whole)) : int(end * len(whole))])
    return made


def tune(arguments: argparse.Namespace, text: Path, folder: Path) -> Path:
    """Train all weights of the base on for some steps on a text; done once."""
    if (folder / "model.safetensors").exists():
        return folder
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokens = torch.tensor(tokenizer(text.read_text(), verbose=False)["input_ids"])
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).train()
    generator = torch.Generator().manual_seed(arguments.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate)
    for step in range(arguments.steps):
        starts = torch.randint(
            len(tokens) - arguments.length, (N_SEQUENCES, 1), generator=generator
        )
        batch = tokens[starts + torch.arange(arguments.length)]
        loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0 or step + 1 == arguments.steps:
            print(f"{text.parent.name} step {step} loss {loss.item():.3f}", flush=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def relative_difference(base: Path, tuned: Path) -> float:
    """Norm of the difference over that of the base, over all matrices of the blocks."""
    models = [AutoModelForCausalLM.from_pretrained(x, dtype=torch.float32) for x in (base, tuned)]
    total = changed = 0.0
    for (name, before), after in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        if before.dim() == 2 and "embed" not in name:
            total += float(before.detach().square().sum())
            changed += float((after.detach() - before.detach()).square().sum())
    return (changed / total) ** 0.5


def study_of(
    arguments: argparse.Namespace, model: Path, base: str | None, texts: dict[str, Path]
) -> Study:
    """A study of a fine-tuned model; of the weights themselves, without the zero bits."""
    menu = tuple(arguments.formats.split(","))
    return Study(
        model=str(model),
        budget=Budget(float(arguments.budgets.split(",")[0]), "bpw"),
        calibration=TextSource(str(texts["calibration"]), arguments.n_sequences, arguments.length),
        evaluation=TextSource(str(texts["evaluation"]), arguments.n_evaluation, arguments.length),
        formats=menu if base is not None else tuple(x for x in menu if x != "zero"),
        pinned=arguments.pin,
        n_trials=arguments.n_trials,
        n_search_sequences=arguments.n_search,
        n_finalists=4,
        seed=arguments.seed,
        dtype="float32",
        device="cpu",
        base=base,
    )


def add_rows(
    record: Record, arguments: argparse.Namespace, study: Study, about: dict[str, object]
) -> None:
    """Search within each budget in one folder, and record answers and uniform allocations."""
    folder = arguments.out / "results" / f"{about['task']}-{about['form']}"
    about = about | {
        "model": Path(arguments.model).name,
        "steps": arguments.steps,
        "learning_rate": arguments.learning_rate,
        "seed": study.seed,
        "n_trials": study.n_trials,
        "n_judged_tokens": arguments.n_evaluation * arguments.length,
        "sequence_length": arguments.length,
    }
    for budget in arguments.budgets.split(","):
        within = Budget(float(budget), "bpw")
        front = run_study(replace(study, budget=within), folder)
        best = front.best("kl", **within.bounds())
        record.add(choice="searched", budget=str(within), **about, **values_of(best))
    for trial in Results(folder).trials():
        if trial.origin == "uniform" and trial.text == "evaluation":
            name = ",".join(sorted(set(trial.allocation.formats.values())))
            record.add(choice=name, **about, **values_of(trial))


def values_of(trial: Trial) -> dict[str, float]:
    """What a row says of a point."""
    said = ("kl", "kl_stderr", "perplexity", "bytes", "bits_per_weight")
    return {name: trial.values[name] for name in said}


def parse() -> argparse.Namespace:
    """Command line."""
    return parser(
        __doc__,
        steps=150,
        learning_rate=1e-4,
        budgets="1.5,3.0",
        formats="zero,sign_g32,int2_g32,int3_g32,int4_g32",
        shared="int4_g32",
        pin="int8_g32",
        n_trials=24,
        **SIZES,
    ).parse_args()


if __name__ == "__main__":
    main()
