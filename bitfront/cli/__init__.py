"""The `bitfront` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

from bitfront.cli import (
    compare,
    evaluate,
    materialise,
    plugins,
    profile,
    proof,
    results,
    search,
    serve,
    share,
    signatures,
    studies,
    submit,
    upkeep,
    watch,
)
from bitfront.errors import BitfrontError
from bitfront.loading import leave

app = typer.Typer(
    help="Mixed-precision bit allocation: a model and a budget in, a measured Pareto front and a "
    "quantized checkpoint out.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "On this machine": (
        search.search,
        share.share,
        compare.compare,
        profile.profile,
        results.front,
        results.report,
        results.export,
        proof.check,
        proof.verify,
        evaluate.evaluate,
        plugins.plugins,
    ),
    "On a server (BITFRONT_URL, BITFRONT_API_KEY)": (
        submit.submit,
        watch.watch,
        studies.studies,
        studies.cancel,
        studies.resume,
        studies.extend,
        materialise.materialise,
        signatures.check_manifest,
    ),
    "The server itself (BITFRONT_*, see docs/service.md)": (
        serve.serve,
        serve.worker,
        serve.dashboard,
        upkeep.upgrade,
        upkeep.collect,
    ),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(upkeep.key, name="key", rich_help_panel=_panel)

_INTERRUPTED = 130
"""Exit code after Ctrl-C; typer returns it where it caught the interrupt itself."""
_CONTINUES = (
    " The same command continues: only the measurement, the table or the predictions in the making "
    "are lost."
)
_GOES_ON = " The study goes on: `bitfront watch ID` watches it again."
_KEPT = {
    "search": _CONTINUES,
    "compare": _CONTINUES,
    "profile": " The same command continues: at most the time in the making is lost.",
    "watch": _GOES_ON,
    "submit": _GOES_ON,
    "materialise": " The server goes on writing: the same command downloads the rest.",
}
"""What an interrupted command leaves."""


def main() -> NoReturn:
    """Run the command line of this process, and end it."""
    leave(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run a command and give its exit code; errors of the user are one line and exit code 2.

    Args:
        words: the command and its arguments.
    """
    try:
        code = app([*words] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except BitfrontError as error:
        return _failed(" ".join(str(error).split()))
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # As in `bitfront front | head`.
        _stop_writing()
        return 1
    except OSError as error:
        if error.filename is not None:  # not the standard output
            raise
        _stop_writing()
        return _failed(f"Cannot write standard output: {error.strerror}.")
    except Exception as error:
        # Typer's usage errors are click exceptions, whichever click it was built on.
        if not hasattr(error, "format_message"):
            raise
        return _failed(error.format_message())
    if code == _INTERRUPTED:
        print(f"Stopped.{_KEPT.get(''.join(words[:1]), '')}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _failed(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return 2


def _stop_writing() -> None:
    """Write nothing more: what is left is flushed once more at the end, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
