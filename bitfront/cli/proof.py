"""bitfront check and verify: that a checkpoint is what was measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bitfront.cli.options import AsJson
from bitfront.loading import uncollected

Checkpoint = Annotated[Path, typer.Argument(help="Folder that bitfront export wrote.")]
ModelNow = Annotated[
    str | None, typer.Option(help="Where the unquantized model is now; default: where it was.")
]


def check(
    checkpoint: Checkpoint,
    runtime: Annotated[str, typer.Option(help="transformers, llama_cpp or vllm.")],
    model: ModelNow = None,
    results: Annotated[
        Path | None, typer.Option(help="Results folder whose quantized weights are taken.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the engine may take.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Load a checkpoint in an engine and compare what it predicts with our own arithmetic."""
    with uncollected():
        from bitfront.display import Display
        from bitfront.proof.check import check as checked

    with Display(as_json) as display:
        verdict = checked(checkpoint, runtime, model, results, timeout, display.show)
    print(verdict.to_json() if as_json else verdict)
    if not verdict.holds:
        raise typer.Exit(1)


def verify(
    checkpoint: Checkpoint,
    model: ModelNow = None,
    text: Annotated[
        str | None, typer.Option(help="Where the measured text is now; default: where it was.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint again and compare it with its manifest: files, data, values."""
    with uncollected():
        from bitfront.display import Display
        from bitfront.proof.verify import verify as verified

    with Display(as_json) as display:
        found = verified(checkpoint, model, text, display.show)
    if as_json:
        print(json.dumps(asdict(found)))
    elif found.differences:
        print("\n".join(found.differences))
    else:
        values = ", ".join(f"{name} {found.values[name]:.6g}" for name in sorted(found.values))
        note = f" ({found.note})" if found.note else ""
        print(f"As recorded: {found.n_files} files, {values}{note}")
    if found.differences:
        raise typer.Exit(1)
