"""bitfront submit: have a server search a study."""

from __future__ import annotations

import json
import tomllib
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from bitfront.cli.options import AsJson
from bitfront.cli.server import PATIENCE, connected, page
from bitfront.errors import InvalidArgument


def submit(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.TOML", help="What to search: model, budget, choices.")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Watch it until it is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a study to a server; it goes on when this machine is off."""
    from bitfront.cli.watch import follow

    body = _read(study)
    with connected(PATIENCE) if watch else connected() as client:
        # Made once: an answer that is lost is asked for again under the same key.
        made = client.submit(body, str(uuid.uuid4()))
        if as_json:
            print(json.dumps({"id": made.id, "state": made.state, "page": page(client, made.id)}))
        else:
            print(f"Study {made.id}\nPage  {page(client, made.id)}", flush=True)
        if watch:
            follow(client, made.id, as_json)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(
            f"{path} cannot be read ({error.strerror}): give a TOML file such as "
            "examples/study.toml."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"{path} is not TOML ({error}): see examples/study.toml for one that is."
        ) from error
