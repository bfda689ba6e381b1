"""Fetching: the only process of a worker that may ask the hub, and it ends before the work begins.

python -m bitfront.workers.fetching FOLDER MAX_MODEL_GB < REQUEST
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bitfront import errors
from bitfront.errors import BitfrontError, StorageError
from bitfront.loading import leave
from bitfront.processes import PARENT, end_with_parent
from bitfront.settings import Settings
from bitfront.study import Study

OFFLINE = "HF_HUB_OFFLINE"
_LOOK_SECONDS = 0.1


def fetched_beside(
    study: Study, folder: Path, settings: Settings, check: Callable[[], None]
) -> Study:
    """Have `fetch` done in a process of its own.

    Args:
        study: what is asked.
        folder: for the files.
        settings: whether the hub may be asked, or only its cache on this machine, and for how much.
        check: is called while it goes on; what it raises ends that process.

    Raises:
        BitfrontError: what `fetch` raised.
        StorageError: it ended without a word, as when it was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, OFFLINE: "0" if settings.hub else "1", PARENT: str(os.getpid())}
    command = [sys.executable, "-m", "bitfront.workers.fetching", str(folder)]
    command.append(str(settings.max_model_gb))
    with (
        tempfile.TemporaryFile("w+") as request,
        tempfile.TemporaryFile("w+") as answer,
        # A name of the hub is no path there.
        tempfile.TemporaryDirectory() as empty,
    ):
        request.write(study.to_json())
        request.seek(0)
        process = subprocess.Popen(
            command, stdin=request, stdout=answer, cwd=empty, env=environment
        )
        try:
            while True:
                check()
                try:
                    process.wait(_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
        answer.seek(0)
        return _understood(answer.read())


def _understood(answer: str) -> Study:
    try:
        found = json.loads(answer.strip().rpartition("\n")[2])
    except ValueError as error:
        raise StorageError("Fetching from the hub was ended from outside: try again.") from error
    if "error" in found:
        kind: type[BitfrontError] = getattr(errors, found["error"])
        raise kind(found["detail"])
    return Study.from_json(found["request"])


def main(arguments: Sequence[str]) -> int:
    """Fetch what the request on the standard input names; print what came of it as JSON."""
    end_with_parent()
    from bitfront.models.hub import fetch

    try:
        request, folder = Study.from_json(sys.stdin.read()), Path(arguments[0])
        study = fetch(request, folder, float(arguments[1]))
    except BitfrontError as error:
        return _refused(error)
    except OSError as error:
        place = error.filename or arguments[0]
        return _refused(StorageError(f"Cannot write {place}: {error.strerror or error}."))
    print(json.dumps({"request": study.to_json()}))
    return 0


def _refused(error: BitfrontError) -> int:
    print(json.dumps({"error": type(error).__name__, "detail": str(error)}))
    return 2


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
