"""Allocations of two PyPI peers on one model, stored as JSON for bitfront's evaluator to judge.

Peers: AutoScheme of `auto-round` (DeltaLoss scores, dynamic programming) and `auto_quantize` of
`nvidia-modelopt` (output Fisher scores, PuLP/CBC), each in a virtual environment of its own. Both
get the same menu (int 2, 3, 4, 5, 8 bits, asymmetric, groups of 64 unless told otherwise, round to
nearest, weights only), the same budgets in average code bits over the linear layers of the blocks,
and the same text.

    python benchmarks/peers.py autoscheme --model FOLDER --calibration TEXT
    python benchmarks/peers.py modelopt --model FOLDER --calibration TEXT

The first call makes `build/peers/PEER` and installs the pins there. Scoring and solving are timed
apart; both peers can answer another budget without scoring again, and that answer is timed too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
import weakref
from collections.abc import Callable
from pathlib import Path

import record
from stopwatch import timed

ROOT = Path(__file__).resolve().parents[1]
BITS = (2, 3, 4, 5, 8)
TARGETS = (2.5, 3.0, 3.5, 4.0, 4.5)
PEERS = ROOT / "benchmarks" / "results" / "peers"
TORCH = "torch==2.13.0"
REQUIREMENTS = {
    "autoscheme": (TORCH, "auto-round==0.16.1"),
    "modelopt": (
        TORCH,
        "nvidia-modelopt==0.47.0",
        "transformers<5.15",
        "accelerate",
        "datasets",
        "requests",
    ),
}
# AutoScheme: its defaults. ModelOpt: 128 batches is its default, the batch is the caller's choice.
SAMPLES = {"autoscheme": (16, 256), "modelopt": (128, 512)}


def block_linears(model) -> dict[str, int]:
    """Weights of each linear layer of the transformer blocks, by name."""
    import torch

    modules = model.model.layers.named_modules(prefix="model.layers")
    return {name: m.weight.numel() for name, m in modules if isinstance(m, torch.nn.Linear)}


def code_bits(allocation: dict[str, str], sizes: dict[str, int]) -> float:
    """Average bits of a code over the allocated weights, scales and zeros not counted."""
    total = sum(
        int(format[3 : format.index("_")]) * sizes[name] for name, format in allocation.items()
    )
    return total / sum(sizes[name] for name in allocation)


def token_rows(tokenizer, text: Path, n_samples: int, length: int) -> list[list[int]]:
    """The first `n_samples` windows of `length` tokens of the text, none overlapping."""
    ids = tokenizer(text.read_text(encoding="utf-8"))["input_ids"]
    if len(ids) < n_samples * length:
        raise SystemExit(f"{text}: {len(ids)} tokens, {n_samples * length} needed")
    return [ids[i * length : (i + 1) * length] for i in range(n_samples)]


def load_model(folder: str):
    """The model in float32 and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer


Solve = Callable[[float], dict[str, str]]


def prepare_autoscheme(arguments, model, tokenizer, folder: Path) -> tuple[Solve, dict]:
    """AutoScheme through `GenScheme`; the first solve scores, later ones read its cache."""
    os.environ["AR_AUTO_SCHEME_CACHE"] = str(folder / "cache")  # empty: no score of an earlier run
    from auto_round.auto_scheme.gen_auto_scheme import AutoScheme, GenScheme
    from auto_round.schemes import QuantizationScheme

    rows = token_rows(tokenizer, arguments.calibration, arguments.samples, arguments.length + 16)
    dataset = folder / "calibration.jsonl"
    dataset.write_text("".join(json.dumps({"text": tokenizer.decode(row)}) + "\n" for row in rows))
    names = list(block_linears(model))

    def solve(target: float) -> dict[str, str]:
        options = [
            QuantizationScheme(bits=b, group_size=arguments.group, sym=False, act_bits=16)
            for b in BITS
        ]
        scheme = AutoScheme(
            avg_bits=target,
            options=options,
            ignore_scale_zp_bits=True,
            nsamples=arguments.samples,
            seqlen=arguments.length,
        )
        generator = GenScheme(
            scheme, model, names, {}, dataset=str(dataset), device_map="cpu", tokenizer=tokenizer
        )
        chosen = generator.get_layer_config()
        return {name: f"int{chosen[name]['bits']}_g{arguments.group}" for name in names}

    return solve, {"ties": "none", "batch_size": 8, "score": "DeltaLoss", "solver": "exact DP"}


def asymmetric_rtn(inputs, quantizer):
    """Round-to-nearest of rows of one group each: s = (max - min) / (2^b - 1), zero = -min / s."""
    low = inputs.amin(dim=-1, keepdim=True).clamp(max=0)
    high = inputs.amax(dim=-1, keepdim=True).clamp(min=0)
    levels = 2**quantizer.num_bits - 1
    scale = ((high - low) / levels).clamp(min=1e-9)
    zero = (-low / scale).round()
    return (inputs.div(scale).round_().add_(zero).clamp_(0, levels) - zero) * scale


def remembered(backend):
    """The backend with one result kept per quantizer: weights do not change while scoring."""
    results = weakref.WeakKeyDictionary()

    def lookup(inputs, quantizer):
        address, kept = results.get(quantizer, (None, None))
        if address != inputs.data_ptr():
            kept = backend(inputs.detach(), quantizer)
            results[quantizer] = (inputs.data_ptr(), kept)
        return kept

    return lookup


def modelopt_format(bits: int, group: int, quantizer: str) -> dict:
    """A weight-only integer format of ModelOpt: `asymmetric_rtn` or its own affine rounding."""
    attributes: dict = {"num_bits": bits, "block_sizes": {-1: group}}
    if quantizer == "rtn":
        attributes["backend"] = "asymmetric_rtn"
    else:  # the middle of the group's range is subtracted, then 2^b - 1 symmetric levels
        attributes["bias"] = {-1: None, "type": "dynamic", "method": "max_min"}
    entries = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": attributes, "enable": True},
    ]
    return {"quant_cfg": entries, "algorithm": "max"}


def prepare_modelopt(arguments, model, tokenizer, _folder: Path) -> tuple[Solve, dict]:
    """ModelOpt's gradient `auto_quantize`; later budgets through `get_auto_quantize_config`."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.quantization.nn import register_quant_backend

    register_quant_backend("asymmetric_rtn", remembered(asymmetric_rtn))
    rows = token_rows(tokenizer, arguments.calibration, arguments.samples, arguments.length)
    batches = [torch.tensor([row]) for row in rows]
    formats = [modelopt_format(bits, arguments.group, arguments.quantizer) for bits in BITS]
    names = list(block_linears(model))
    state: dict = {}

    def constraints(target: float) -> dict:
        excluded = {"excluded_module_name_patterns": ["lm_head"]}  # else it counts with 16 bits
        return {"effective_bits": target, "cost": excluded}

    def first(target: float) -> None:
        space = {
            "module_name_patterns": ["model.layers.*"],
            "quantization_formats": formats,
            "allow_no_quant": False,
        }
        _, found = mtq.auto_quantize(
            model,
            constraints=constraints(target),
            quantization_formats=formats,
            data_loader=batches,
            forward_step=lambda model, ids: model(input_ids=ids, labels=ids, use_cache=False),
            loss_func=lambda output, _ids: output.loss,
            disabled_layers="lm_head",
            num_calib_steps=1,
            num_score_steps=len(batches),
            module_search_spaces=[space],
        )
        state.update(found)

    def solve(target: float) -> dict[str, str]:
        if not state:
            first(target)
            config = mtq.get_auto_quantize_config(state)
        else:
            config = mtq.get_auto_quantize_config(state, constraints(target))
        entries = {e["quantizer_name"]: e for e in config["quant_cfg"] if e.get("enable", True)}
        chosen = {name: entries[f"{name}.weight_quantizer"]["cfg"] for name in names}
        return {name: f"int{cfg['num_bits']}_g{arguments.group}" for name, cfg in chosen.items()}

    return solve, {
        "ties": "default (q/k/v and gate/up)",
        "batch_size": 1,
        "score": "gradient",
        "solver": "PuLP/CBC",
        "bf16_option": False,
        "quantizer": arguments.quantizer,
        "num_calib_steps": 1,  # weights only: calibration data never enter
    }


def inside(arguments) -> None:
    """Run one peer in this interpreter: score, solve every budget, write one JSON per budget."""
    import torch

    # Folders of this machine stay out of the recorded command.
    sys.argv = ["benchmarks/peers.py", *public_arguments(arguments)]
    torch.set_num_threads(arguments.threads)
    stages: dict[str, dict] = {}
    prepare = {"autoscheme": prepare_autoscheme, "modelopt": prepare_modelopt}[arguments.peer]
    with tempfile.TemporaryDirectory() as folder:
        with timed(stages, "load"):
            model, tokenizer = load_model(arguments.model)
        sizes = block_linears(model)
        solve, settings = prepare(arguments, model, tokenizer, Path(folder))
        with timed(stages, "first"):
            solve(arguments.targets[0])
        found = {}
        for target in arguments.targets:
            with timed(stages, f"solve_{target}"):
                found[target] = solve(target)
    stages["scoring"] = scoring(stages["first"], stages[f"solve_{arguments.targets[0]}"])
    settings |= provenance(arguments)
    for target, allocation in found.items():
        bits = code_bits(allocation, sizes)
        names = {"load": "load", "scoring": "scoring", "solving": f"solve_{target}"}
        timings = {name: stages[stage] for name, stage in names.items()}
        write_result(arguments, target, bits, allocation, timings, settings)


def scoring(first: dict, again: dict) -> dict:
    """The first answer less the same budget solved again; the peak is that of the first answer."""
    spent = {name: round(first[name] - again[name], 3) for name in ("seconds", "cpu_seconds")}
    return first | spent


def provenance(arguments) -> dict:
    """What was run on what: data, sizes, versions, machine, date, commit and command."""
    import importlib.metadata

    names = ("torch", "transformers", "accelerate", "datasets", "pulp")
    present = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {
        "model": Path(arguments.model).name,
        "calibration": arguments.calibration.name,
        "calibration_sha256": hashlib.sha256(arguments.calibration.read_bytes()).hexdigest(),
        "samples": arguments.samples,
        "length": arguments.length,
        "dtype": "float32",
        "threads": arguments.threads,
        "versions": {name: present[name] for name in names if name in present},
        "also_running": arguments.also_running,
        **record.origin(),
    }


def public_arguments(arguments) -> list[str]:
    """The arguments that matter for a repetition, without folders of this machine."""
    words = [arguments.peer, "--samples", str(arguments.samples), "--length", str(arguments.length)]
    words += ["--group", str(arguments.group)]
    if arguments.peer == "modelopt":
        words += ["--quantizer", arguments.quantizer]
    model, text = Path(arguments.model).name, arguments.calibration.name
    return [*words, "--threads", str(arguments.threads), "--model", model, "--calibration", text]


def write_result(arguments, target, bits, allocation, timings, settings) -> None:
    """Write one allocation as `NAME_TARGET.json` and one row of `peers.csv`."""
    import importlib.metadata

    package = REQUIREMENTS[arguments.peer][1].partition("==")[0]
    seconds = round(timings["scoring"]["seconds"] + timings["solving"]["seconds"], 3)
    head = {"peer": arguments.peer, "version": importlib.metadata.version(package)}
    head |= {"target_bits": target, "code_bits": bits, "seconds": seconds}
    path = arguments.out / Path(arguments.model).name / f"{arguments.name}_{target}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {**head, "timings": timings, "settings": settings, "allocation": allocation}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    measures = ("seconds", "cpu_seconds", "peak_mib")
    spent = {f"{s}_{m}": timings[s][m] for s in ("scoring", "solving") for m in measures}
    kept = {name: settings[name] for name in ("samples", "length", "threads", "also_running")}
    columns = ("file", *head, *spent, *kept)
    record.Record("peers", columns, arguments.out).add(
        file=f"{path.parent.name}/{path.name}", **head, **spent, **kept
    )
    sys.stdout.write(f"{path.name}: {bits:.4f} bits, {seconds:.1f} s\n")


def environment(peer: str, folder: Path) -> Path:
    """The interpreter of the peer's own virtual environment, made and filled when missing."""
    home = folder / peer
    python, marker = home / "bin" / "python", home / "installed"
    wanted = "\n".join(REQUIREMENTS[peer])
    if not marker.exists() or marker.read_text(encoding="utf-8") != wanted:
        venv.create(home, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--no-compile", *REQUIREMENTS[peer]],
            check=True,
        )
        marker.write_text(wanted, encoding="utf-8")
    return python


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=sorted(REQUIREMENTS))
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--calibration", type=Path, required=True, help="a plain text file")
    parser.add_argument("--targets", type=float, nargs="+", default=list(TARGETS))
    parser.add_argument("--group", type=int, default=64, help="weights that share a scale")
    parser.add_argument("--samples", type=int, help="windows of text (the peer's default)")
    parser.add_argument("--length", type=int, help="tokens of a window")
    parser.add_argument(
        "--quantizer", choices=("rtn", "affine"), default="rtn", help="modelopt only"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--also-running", default="not recorded", help="other load, in words")
    parser.add_argument("--name", help="prefix of the JSON files (the peer)")
    parser.add_argument("--out", type=Path, default=PEERS, help="a folder per model is made in it")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    samples, length = SAMPLES[arguments.peer]
    arguments.samples, arguments.length = arguments.samples or samples, arguments.length or length
    arguments.name = arguments.name or arguments.peer
    return arguments


def main() -> None:
    """Start the peer in its environment, or run it when this is that interpreter."""
    arguments = parse()
    if arguments.inside:
        inside(arguments)
        return
    python = environment(arguments.peer, arguments.environments)
    settings = {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    command = [python, str(Path(__file__).resolve()), *sys.argv[1:], "--inside"]
    subprocess.run(command, env=os.environ | settings, check=True)


if __name__ == "__main__":
    main()
