"""bitfront share: what several fine-tuned models have alike, as a base for studies of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bitfront.cli.options import AsJson, Device
from bitfront.loading import uncollected
from bitfront.study import OFFSET_PINNED, Study


def share(
    models: Annotated[list[str], typer.Argument(help="Two or more fine-tuned models.")],
    base: Annotated[str, typer.Option(help="What they were fine-tuned from.")],
    out: Annotated[Path, typer.Option(help="Folder of the shared offset.")],
    format: Annotated[str, typer.Option(help="Format of the mean difference.")] = "int4_g64",
    pin: Annotated[
        str, typer.Option(help="That of embedding and head, or none for the base's own.")
    ] = OFFSET_PINNED,
    device: Device = Study.device,
    as_json: AsJson = False,
) -> None:
    """Pack the mean difference of models from their base: `search MODEL --base` takes it."""
    with uncollected():
        from bitfront.display import Display
        from bitfront.sharing import share_offset

    pinned = None if pin == "none" else pin
    with Display(as_json) as display:
        nbytes = share_offset(models, base, out, format, pinned, device, display.show)
    said = {"base": str(out), "bytes": nbytes}
    print(json.dumps(said) if as_json else f"{out}: {nbytes:,} bytes, shared by {len(models)}")
