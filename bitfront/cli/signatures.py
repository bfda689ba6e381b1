"""bitfront check-manifest: whether a server wrote a manifest, and these files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from bitfront.cli.server import need_extra
from bitfront.errors import InvalidArgument


def check_manifest(
    manifest: Annotated[Path, typer.Argument(help="Signed manifest of a checkpoint or front.")],
    public_key: Annotated[
        str, typer.Option(help="64 hexadecimal digits of the server's GET /v1/manifests/key.")
    ],
    files: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoint, to compare with the manifest.")
    ] = None,
) -> None:
    """Tell whether a server signed a manifest and wrote the files; it need not be reached."""
    need_extra()
    from bitfront.signatures import is_signed, key_id, parse_key

    key = parse_key(public_key)
    stated = _read(manifest)
    differences = [] if is_signed(stated, key) else [f"{manifest} is not as it was signed."]
    listed = _files(stated) if files is not None and not differences else {}
    if files is not None:
        differences += _differences(files, listed, manifest)
    if differences:
        print("\n".join(differences))
        raise typer.Exit(1)
    compared = f", {len(listed)} files are as listed" if files is not None else ""
    print(f"Signed with key {key_id(key)}{compared}.")


def _read(path: Path) -> dict[str, Any]:
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"Cannot read manifest {path}: {error}. Give the JSON that the server sent."
        ) from error
    if not isinstance(stated, dict):
        raise InvalidArgument(f"{path} is not a manifest: give the JSON that the server sent.")
    return stated


def _files(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Digest of each file by name; of a manifest whose signature is right."""
    if "files" not in manifest:
        raise InvalidArgument(
            "The manifest is that of a front, which has no files: leave out --files."
        )
    return {each["name"]: each["sha256"] for each in manifest["files"]}


def _differences(folder: Path, listed: Mapping[str, str], manifest: Path) -> list[str]:
    from bitfront.artifacts import digest_of

    there = {x.relative_to(folder).as_posix() for x in _others(folder, manifest)}
    found = [f"{name} is not in the manifest." for name in sorted(there - listed.keys())]
    for name, digest in listed.items():
        path = folder / PurePosixPath(name)
        if not path.is_file():
            found.append(f"{name} is missing in {folder}.")
        elif digest_of(path) != digest:
            found.append(f"{name} is not the file of the manifest.")
    return found


def _others(folder: Path, manifest: Path) -> Iterator[Path]:
    """Files of a folder; the manifest may lie among them."""
    yield from (x for x in folder.rglob("*") if x.is_file() and not x.samefile(manifest))
