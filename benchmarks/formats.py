"""What each format costs and loses when every layer has it: exact bits, output error, KL.

    python benchmarks/formats.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--formats int3_g32,lut3_channel] [--quantizers rtn,gptq] [--n-sequences 8]
        [--n-evaluation 8] [--task sentences]

The linear layers of the blocks are quantized alike, embedding and head are left as they are.
Output error is tr(D H D^T) / tr(W H W^T), geometric mean over the layers, with H of the calibration
text, `n_calibration` tokens of it; KL is on the evaluation text, of a sentence encoder the cosine
error (texts of a sentence a line). Formats that do not fit all layers are left out, and so are rows
that the file has already: a run that was cut goes on when it is started again. Appends to
`benchmarks/results/formats.csv`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from record import Record
from studies import parser, untied_study
from torch import nn

from bitfront import Budget, Choice, Study
from bitfront.evaluation import METRICS
from bitfront.evaluation.base import evaluate
from bitfront.formats import named
from bitfront.formats.base import Format
from bitfront.inputs import prepare
from bitfront.models.embeddings import answers_of
from bitfront.models.layers import get_weight, set_weight
from bitfront.models.statistics import counts_relative, input_grams
from bitfront.quantizers import QUANTIZERS
from bitfront.space import SearchSpace

FORMATS = (
    "int2_g32,int2_channel,int2_g32_had,int2_channel_had,lut2_channel,higgs_n16p2_channel,"
    "gauss_n16p2_channel,higgs_n32p2_channel,slim2_g32,int3_g32,int3_channel,int3_g32_had,"
    "int3_channel_had,lut3_channel,higgs_n64p2_channel,higgs_n128p2_channel,slim3_g32,int4_g32,"
    "int4_channel,int4_g32_had,int4_channel_had,lut4_channel,higgs_n256p2_channel,fp4_g32,"
    "fp4_g32_had,mxfp4,mxfp4_had,nvfp4,nvfp4_had,nvint4,mxfp6_e2m3,mxfp8_e4m3,mxint8,"
    "int2_channel_sparse10,int3_channel_sparse10,int4_channel_sparse10,binary_salient10,"
    "binary_salient20,int2_g32_cols,int3_g32_cols,int4_g32_cols,ternary_g64,trit_planes_g64,"
    "bit_planes2_g64,nf4_g32,int5_g32,int6_channel,int6_channel_sym,fp6_e2m3_g64,mxfp6_e3m2"
)
METRIC = {"sentences": "cosine_error"}  # of other tasks: kl_divergence
COLUMNS = (
    *("model", "format", "quantizer", "bits_per_weight", "code_bits", "output_error"),
    *("kl", "kl_stderr", "seconds", "n_layers", "n_tokens", "cosine_error", "cosine_error_stderr"),
    "n_calibration",
)


def main() -> None:
    """Quantize, measure and put back, format by format."""
    arguments = parse()
    record = Record("formats", COLUMNS)
    inputs = prepare(asked(arguments))
    model = inputs.model.module
    originals = {x.name: get_weight(model, x.name).clone() for x in inputs.space.layers}
    choices = Choice.parse_list(arguments.quantizers)
    quantizers = {named_in(model, x): QUANTIZERS.build(x.name, x.params) for x in choices}
    kinds = {False, *(counts_relative(model, x) for x in quantizers.values())}
    grams = {x: input_grams(model, inputs.estimation, list(originals), x) for x in kinds}
    reference = answers_of(model, inputs.evaluation)
    metric = METRIC.get(arguments.task, "kl_divergence")
    metrics = {metric: METRICS.build(metric)}
    about = {
        "model": Path(arguments.model).name,
        "n_layers": len(originals),
        "n_tokens": int((inputs.evaluation >= 0).sum()),
        "n_calibration": int((inputs.estimation >= 0).sum()),
    }
    for format, name in left(arguments, record, about, inputs.space, quantizers):
        start = time.perf_counter()
        quantizer, errors = quantizers[name], []
        seen = grams[counts_relative(model, quantizer)]
        for layer, weight in originals.items():
            values = quantizer.quantize(weight, format, seen[layer]).dequantize()
            errors.append(math.log(relative_error(values, weight, grams[False][layer])))
            set_weight(model, layer, values)
        seconds = time.perf_counter() - start
        found = evaluate(model, reference, metrics)
        nbytes = sum(format.nbytes(x.shape) for x in inputs.space.layers)
        record.add(
            **about,
            format=format.name,
            quantizer=name,
            bits_per_weight=round(8 * nbytes / inputs.space.n_weights, 4),
            code_bits=format.code_bits,
            output_error=f"{math.exp(sum(errors) / len(errors)):.4g}",
            seconds=round(seconds, 1),
            **{x: f"{v:.{2 if 'stderr' in x else 4}g}" for x, v in found.items() if x in COLUMNS},
        )


def asked(arguments: argparse.Namespace) -> Study:
    """What is loaded; nothing is searched."""
    return untied_study(
        arguments,
        arguments.n_sequences,
        arguments.n_evaluation,
        task=arguments.task,
        budget=Budget(4, "bits"),
        estimator=Choice("weight_error"),
        n_search_sequences=3 if arguments.task == "sentences" else 1,  # the least there may be
        formats=("int4_channel",),
        pinned=None,
    )


def named_in(model: nn.Module, choice: Choice) -> str:
    """What rows call a quantizer: `gptq:relative=True` wherever it counts errors so."""
    relative = counts_relative(model, QUANTIZERS.build(choice.name, choice.params))
    return str(replace(choice, params=choice.params | ({"relative": True} if relative else {})))


def left(
    arguments: argparse.Namespace,
    record: Record,
    about: dict[str, object],
    space: SearchSpace,
    quantizers: Iterable[str],
) -> Iterator[tuple[Format, str]]:
    """Formats that fit every layer, with the quantizers that the file has no row of yet."""
    rows = record.rows() if record.path.exists() else []
    done = {(*(row[x] for x in about), row["format"], row["quantizer"]) for row in rows}
    for name in arguments.formats.split(","):
        format = named(name)
        if not all(format.fits(x.shape) for x in space.layers):
            print(f"{name} does not fit all layers", flush=True)
            continue
        for quantizer in quantizers:
            if (*map(str, about.values()), name, quantizer) not in done:
                yield format, quantizer


def relative_error(values: torch.Tensor, weight: torch.Tensor, gram: torch.Tensor) -> float:
    """tr(D H D^T) / tr(W H W^T)."""
    error = values - weight
    return float(((error @ gram) * error).sum() / ((weight @ gram) * weight).sum())


def parse() -> argparse.Namespace:
    """Command line."""
    return parser(
        __doc__,
        formats=FORMATS,
        quantizers="rtn,awq,kmeans,gptq,slim",
        n_sequences=8,
        n_evaluation=8,
        length=256,
        task="auto",
    ).parse_args()


if __name__ == "__main__":
    main()
