"""Small made-up studies to report on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfront import formats
from bitfront.allocation import Allocation
from bitfront.pareto import TIMED, ParetoFront
from bitfront.report.data import ReportData
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable
from bitfront.trial import Trial

LLAMA = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
GPT2 = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def named_layers(n_blocks=3, parts=LLAMA, outside=(), shape=(128, 128)):
    inside = [(f"model.layers.{b}.{part}", b, part) for b in range(n_blocks) for part in parts]
    return (
        *(Layer(name, shape, name, block, kind) for name, block, kind in inside),
        *(Layer(name, shape, name) for name in outside),
    )


def expert_layers(n_experts, n_blocks=1, part="up_proj"):
    """Layers that a block has many of."""
    return tuple(
        Layer(name, (128, 128), name, block, f"mlp.experts.{part}")
        for block in range(n_blocks)
        for name in (f"model.layers.{block}.mlp.experts.{e}.{part}" for e in range(n_experts))
    )


def measured(space, loss, choice, number, text="evaluation", origin="posterior_ilp"):
    """A trial whose KL is exactly what the loss table predicts."""
    choice = np.asarray(choice)
    n_bytes = space.outside_bytes + sum(
        space.formats[c].nbytes(layer.shape) for c, layer in zip(choice, space.layers, strict=True)
    )
    kl = loss.total(choice)
    values = {
        "kl": kl,
        "kl_stderr": kl / 30,
        "perplexity": 17 * np.exp(kl),
        "top1_error": 0.1 + kl / 100,
        "bits": float(np.mean([space.formats[c].num_bits for c in choice])),
        "bits_per_weight": 8 * (n_bytes - space.outside_bytes) / space.n_weights,
        "bytes": float(n_bytes),
        "seconds": 1.5,
    }
    return Trial(number, space.decode(choice), text, origin, values=values)


def made_up(layers=None, bits=(2, 3, 4, 8), n_searched=12, title="a model", seed=0):
    """A study of random sensitivities: uniform baselines and `n_searched` other allocations."""
    rng = np.random.default_rng(seed)
    layers = layers or named_layers()
    space = SearchSpace(layers, tuple(formats.named(f"int{b}_g64") for b in bits), fixed_bytes=1000)
    scale = rng.lognormal(0, 1.5, (len(layers), 1))
    loss = LayerTable(space, scale * 4.0 ** -np.array(bits, dtype=float), "kl", "Fisher()")
    choices = [space.uniform(column) for column in range(len(bits))]
    for price in np.geomspace(1e-5, 1e-2, n_searched):
        nbytes = np.array([[f.nbytes(x.shape) for f in space.formats] for x in layers])
        choices.append(np.argmin(loss.values + price * nbytes, axis=1))
    origins = ["uniform"] * len(bits) + ["posterior_ilp"] * n_searched
    evaluations, calibrations = (
        tuple(
            measured(space, loss, choice, number, text, origin)
            for number, (choice, origin) in enumerate(zip(choices, origins, strict=True))
        )
        for text in ("evaluation", "calibration")
    )
    front = ParetoFront(evaluations)
    return ReportData(
        title=title,
        space=space,
        front=front,
        evaluations=evaluations,
        calibrations=calibrations,
        loss=loss,
        budget="3.5bpw",
        limits={"bytes": 3.5 * space.n_weights // 8},
        chosen=front.trials[len(front.trials) // 2],
        provenance={"command": "bitfront search <model> --budget 3.5bpw", "seed": "0"},
    )


def timed(data):
    """The same study with a latency by which the wider formats are the faster ones."""

    def with_latency(trial):
        return replace(
            trial, values={**trial.values, "latency_ns": 1e6 * (20 - trial.values["bits"])}
        )

    evaluations = tuple(map(with_latency, data.evaluations))
    return replace(
        data,
        front=ParetoFront(evaluations, TIMED),
        evaluations=evaluations,
        chosen=with_latency(data.chosen),
        latency="latency:table=gpu.json",
    )


def single_point(data):
    """The same study with one measured allocation and nothing measured on calibration text."""
    only = data.evaluations[-1]
    return replace(
        data, front=ParetoFront((only,)), evaluations=(only,), calibrations=(), chosen=only
    )


def with_kl(trial, kl, n_bytes):
    return replace(trial, values={**trial.values, "kl": kl, "bytes": n_bytes})


def bare_trial(kl, n_bytes, origin="uniform", number=0):
    values = {"kl": kl, "bytes": n_bytes}
    return Trial(number, Allocation({"a": "int4_g64"}), "evaluation", origin, values=values)
