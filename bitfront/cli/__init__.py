"""The `bitfront` command."""

from __future__ import annotations

import os
import sys

import typer

from bitfront.cli import compare, plugins, results, search
from bitfront.errors import BitfrontError

app = typer.Typer(
    help="Mixed-precision bit allocation: a model and a budget in, a measured Pareto front and a "
    "quantized checkpoint out.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (
    search.search,
    compare.compare,
    results.front,
    results.report,
    results.export,
    plugins.plugins,
):
    app.command()(_command)

_INTERRUPTED = 130
"""Exit code after Ctrl-C; typer returns it where it caught the interrupt itself."""


def main() -> None:
    """Run the command line; errors of the user are one line and exit code 2."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except BitfrontError as error:
        _fail(" ".join(str(error).split()))
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # As in `bitfront front | head`.
        _stop_writing()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:  # not the standard output
            raise
        _stop_writing()
        _fail(f"Cannot write standard output: {error.strerror}.")
    except Exception as error:
        # Typer's usage errors are click exceptions, whichever click it was built on.
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message())
    if code == _INTERRUPTED:
        continues = sys.argv[1:2] in (["search"], ["compare"])
        kept = (
            " The same command continues: only the measurement, the table or the predictions "
            "in the making are lost."
        )
        print(f"Stopped.{kept * continues}", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def _fail(message: str) -> None:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)


def _stop_writing() -> None:
    """Write nothing more: the interpreter flushes once more at its end, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
