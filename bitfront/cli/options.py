"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitfront.study import Study

FORMATS = ",".join(Study.formats)

Model = Annotated[str, typer.Argument(help="Local folder, GGUF file, or hub id.")]
Base = Annotated[
    str | None,
    typer.Option(
        help="What MODEL was fine-tuned from: search formats of the difference, count its bytes."
    ),
]
Menu = Annotated[str, typer.Option(help="Menu, separated by commas.")]
CalibrationText = Annotated[str, typer.Option(help="Text file, JSON lines, or datasets name.")]
ExporterChoice = Annotated[
    str,
    typer.Option(help="name or name:key=value,...; `bitfront plugins` lists them."),
]
OneChoice = Annotated[str, typer.Option(help="name or name:key=value,...")]
SequenceLength = Annotated[int, typer.Option(help="Tokens of a block.")]
RuntimeName = Annotated[
    str | None,
    typer.Option(help="Engine that must load every point: vllm, transformers, llama_cpp."),
]
TensorParallel = Annotated[int, typer.Option(help="Ranks that it spreads the weights over.")]
Ties = Annotated[bool, typer.Option(help="Fused layers (q/k/v, gate/up) share a format.")]
Experts = Annotated[
    str,
    typer.Option(
        help="What of the experts of a block shares a format: matrix, expert, cluster:4, block; "
        "or none, to leave stacked ones at 16 bits."
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        help="text, images, sentences, image-text, or auto: what the model's folder says."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Out = Annotated[Path, typer.Option("--out", help="Results folder; the same command continues it.")]
ResultsFolder = Annotated[Path, typer.Argument(help="Results folder of a search.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Machine-readable lines instead of a display.")
]


def menu(text: str) -> tuple[str, ...]:
    """Names of formats, given separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
