"""What each format costs and loses when every layer has it: exact bits, output error, KL.

    python benchmarks/formats.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--formats int3_g32,lut3_channel] [--quantizers rtn,gptq] [--n-sequences 8]

The linear layers of the blocks are quantized alike, embedding and head are left as they are.
Output error is tr(D H D^T) / tr(W H W^T), geometric mean over the layers, with H of the calibration
text; KL is on the evaluation text. Formats that do not fit all layers are left out. Appends to
`benchmarks/results/formats.csv`.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from record import Record
from studies import parser, untied_study

from bitfront import Budget, Choice
from bitfront.evaluation import METRICS
from bitfront.evaluation.base import evaluate
from bitfront.formats import named
from bitfront.inputs import prepare
from bitfront.models.layers import get_weight, set_weight
from bitfront.models.reference import Reference
from bitfront.models.statistics import input_grams
from bitfront.quantizers import QUANTIZERS

FORMATS = (
    "int2_g32,int2_channel,int2_g32_had,int2_channel_had,lut2_channel,higgs_n16p2_channel,"
    "gauss_n16p2_channel,higgs_n32p2_channel,slim2_g32,int3_g32,int3_channel,int3_g32_had,"
    "int3_channel_had,lut3_channel,higgs_n64p2_channel,higgs_n128p2_channel,slim3_g32,int4_g32,"
    "int4_channel,int4_g32_had,int4_channel_had,lut4_channel,higgs_n256p2_channel,fp4_g32,"
    "fp4_g32_had,mxfp4,mxfp4_had,nvfp4,nvfp4_had,nvint4,mxfp6_e2m3,mxfp8_e4m3,mxint8,"
    "int2_channel_sparse10,int3_channel_sparse10,int4_channel_sparse10,binary_salient10,"
    "binary_salient20,int2_g32_cols,int3_g32_cols,int4_g32_cols"
)
COLUMNS = (
    *("model", "format", "quantizer", "bits_per_weight", "code_bits", "output_error"),
    *("kl", "kl_stderr", "seconds", "n_layers", "n_tokens"),
)


def main() -> None:
    """Quantize, measure and put back, format by format."""
    arguments = parse()
    record = Record("formats", COLUMNS)
    study = untied_study(
        arguments,
        arguments.n_sequences,
        arguments.n_sequences,
        budget=Budget(4, "bits"),
        estimator=Choice("weight_error"),
        n_search_sequences=1,
        formats=("int4_channel",),
        pinned=None,
    )
    inputs = prepare(study)
    model = inputs.model.module
    originals = {x.name: get_weight(model, x.name).clone() for x in inputs.space.layers}
    grams = input_grams(model, inputs.estimation, list(originals))
    reference = Reference.of(model, inputs.evaluation)
    metrics = {"kl_divergence": METRICS.build("kl_divergence")}
    for name in arguments.formats.split(","):
        format = named(name)
        if not all(format.fits(x.shape) for x in inputs.space.layers):
            print(f"{name} does not fit all layers", flush=True)
            continue
        nbytes = sum(format.nbytes(x.shape) for x in inputs.space.layers)
        for choice in Choice.parse_list(arguments.quantizers):
            start = time.perf_counter()
            quantizer, errors = QUANTIZERS.build(choice.name, choice.params), []
            for layer, weight in originals.items():
                values = quantizer.quantize(weight, format, grams[layer]).dequantize()
                errors.append(math.log(relative_error(values, weight, grams[layer])))
                set_weight(model, layer, values)
            seconds = time.perf_counter() - start
            found = evaluate(model, reference, metrics)
            record.add(
                model=Path(arguments.model).name,
                format=name,
                quantizer=str(choice),
                bits_per_weight=round(8 * nbytes / inputs.space.n_weights, 4),
                code_bits=format.code_bits,
                output_error=float(f"{math.exp(sum(errors) / len(errors)):.4g}"),
                kl=float(f"{found['kl']:.4g}"),
                kl_stderr=float(f"{found['kl_stderr']:.2g}"),
                seconds=round(seconds, 1),
                n_layers=len(errors),
                n_tokens=inputs.evaluation.numel(),
            )
    for layer, weight in originals.items():
        set_weight(model, layer, weight)


def relative_error(values: torch.Tensor, weight: torch.Tensor, gram: torch.Tensor) -> float:
    """tr(D H D^T) / tr(W H W^T)."""
    error = values - weight
    return float(((error @ gram) * error).sum() / ((weight @ gram) * weight).sum())


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--formats", default=FORMATS)
    made.add_argument("--quantizers", default="rtn,awq,kmeans,gptq,slim")
    made.add_argument("--n-sequences", type=int, default=8)
    made.add_argument("--length", type=int, default=256)
    return made.parse_args()


if __name__ == "__main__":
    main()
