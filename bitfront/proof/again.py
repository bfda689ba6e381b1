"""A checkpoint written again from its manifest and the unquantized model alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bitfront.environment import versions
from bitfront.export import EXPORTERS
from bitfront.export.base import Exporter, check_target
from bitfront.manifest import Manifest
from bitfront.plugins import Choice
from bitfront.progress import Progress, silent
from bitfront.proof.rebuilt import rebuilt
from bitfront.run import write_checkpoint


def exporter_of(text: str) -> Exporter:
    """The exporter that a manifest names.

    Args:
        text: name with parameters, such as `"packed:max_shard_size=2GB"`.

    Raises:
        InvalidArgument: it has no such parameter, or not of that value.
        UnknownPlugin: none of that name.
    """
    choice = Choice.parse(text)
    return EXPORTERS.build(choice.name, choice.params)


def export_again(
    folder: Path,
    directory: Path,
    exporter: str | None = None,
    model: str | None = None,
    progress: Progress = silent,
) -> None:
    """Write the point of a checkpoint once more, the same files or those of another exporter.

    Args:
        folder: a checkpoint.
        directory: of the new one.
        exporter: its exporter with parameters; `None` for the same.
        model: where the model is now; `None` for where it was.
        progress: called as the work goes on.

    Raises:
        BitfrontError: as `rebuilt` and `export_checkpoint`.
    """
    manifest = Manifest.read(folder)
    wanted = exporter or manifest.exporter
    chosen = exporter_of(wanted)
    check_target(directory, model or manifest.study.model)
    with rebuilt(manifest, model, progress=progress) as made:
        new = replace(manifest, exporter=wanted, written_with=versions())
        write_checkpoint(chosen, made.model, made.bank, new, directory)
