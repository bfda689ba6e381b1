"""A front as data: a list of points, written as JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, TextIO, TypedDict, cast

import pyarrow as pa
import pyarrow.parquet

from bitfront.errors import InvalidArgument
from bitfront.files import replacing
from bitfront.pareto import ParetoFront
from bitfront.trial import ANSWERED, CACHE_BYTES, PREDICTED, SECOND_TEXT, Trial

VALUES = (
    "kl",
    "kl_stderr",
    "perplexity",
    "top1_error",
    "bits",
    "bits_per_weight",
    "bytes",
)
"""Quantities of a point, in the order of the columns; `OPTIONAL` ones follow where they are."""

OF_TASKS = ("label_error", "cosine_error", "cosine_error_stderr", "rank_correlation_error")
"""Quantities of models that are no language models."""

OPTIONAL = (*OF_TASKS, CACHE_BYTES, *PREDICTED, *SECOND_TEXT, *ANSWERED)

MEASURED = (*VALUES, *OF_TASKS, "latency_ns")
"""Quantities by which two points are compared."""

FORMATS = ("json", "csv", "parquet")


class Point(TypedDict):
    """One measured allocation of a front."""

    values: dict[str, float]
    allocation: dict[str, str]
    origin: str
    number: int


def points(front: ParetoFront) -> list[Point]:
    """Every trial of the front, in its order; quantities that were not measured are left out."""
    return [_point(trial) for trial in front.trials]


def _point(trial: Trial) -> Point:
    values = {
        name: float(trial.values[name]) for name in (*VALUES, *OPTIONAL) if name in trial.values
    }
    for name in ("bytes", CACHE_BYTES):
        if name in values:
            values[name] = int(values[name])
    allocation = dict(trial.allocation.formats)
    return Point(values=values, allocation=allocation, origin=trial.origin, number=trial.number)


def write_points(front: ParetoFront, target: Path | TextIO, format: str = "json") -> None:
    """Write the points of a front.

    `json` is a list of points. `csv` has one row a point: `number`, `origin`, one column a
    quantity (empty where not measured), and `allocation` as JSON. `parquet` has the same columns
    with `allocation` as `map<string, string>`.

    Args:
        front: what to write.
        target: a file, replaced only when wholly written, or an open text stream such as
            standard output.
        format: `"json"`, `"csv"` or `"parquet"`.

    Raises:
        InvalidArgument: unknown format, or Parquet into a stream that takes only text.
        StorageError: the file could not be written.
    """
    check_format(format)
    write_data(encoded(front, format), target, format)


def check_format(format: str) -> None:
    """Refuse a format of a front that there is not.

    Raises:
        InvalidArgument: names those that there are.
    """
    if format not in FORMATS:
        raise InvalidArgument(f"Unknown format {format!r} of a front: use {', '.join(FORMATS)}.")


def write_data(data: bytes, target: Path | TextIO, format: str) -> None:
    """Write the bytes of a front, as `write_points` does.

    Raises:
        InvalidArgument: Parquet into a stream that takes only text.
        StorageError: the file could not be written.
    """
    if isinstance(target, Path):
        with replacing(target) as temporary:
            temporary.write_bytes(data)
    elif format != "parquet":
        target.write(data.decode())
    else:
        _binary(target).write(data)


def _binary(stream: TextIO) -> BinaryIO:
    binary = getattr(stream, "buffer", None)
    if binary is None or (stream is sys.stdout and stream.isatty()):
        raise InvalidArgument("Parquet is binary and this stream takes text: give a file to write.")
    stream.flush()
    return cast("BinaryIO", binary)


def encoded(front: ParetoFront, format: str, allocations: bool = True) -> bytes:
    """The points of a front as the bytes of a file.

    Args:
        front: what to write.
        format: one of `FORMATS`, as `write_points` has them.
        allocations: whether points say the format of each layer; without, they say none.
    """
    rows = points(front)
    if not allocations:
        rows = [Point(**{**row, "allocation": {}}) for row in rows]
    encode = {"json": _json, "csv": _csv, "parquet": _parquet}[format]
    return encode(rows)


def encoded_fronts(fronts: Mapping[str, ParetoFront]) -> bytes:
    """The points of many fronts as one Parquet file.

    Args:
        fronts: study to its front; the column `study_id` says which, and rows keep the order.
    """
    found = [(name, row) for name, front in fronts.items() for row in points(front)]
    table = _table([row for _, row in found])
    names = pa.array([name for name, _ in found], pa.string())
    return _written(table.add_column(0, "study_id", names))


def _json(rows: list[Point]) -> bytes:
    return (json.dumps(rows, indent=1) + "\n").encode()


def _quantities(rows: list[Point]) -> tuple[str, ...]:
    return (*VALUES, *(q for q in OPTIONAL if any(q in row["values"] for row in rows)))


def _csv(rows: list[Point]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = _quantities(rows)
    writer.writerow(["number", "origin", *names, "allocation"])
    for row in rows:
        quantities = [repr(row["values"][q]) if q in row["values"] else "" for q in names]
        allocation = json.dumps(row["allocation"], separators=(",", ":"))
        writer.writerow([row["number"], row["origin"], *quantities, allocation])
    return text.getvalue().encode()


def _parquet(rows: list[Point]) -> bytes:
    return _written(_table(rows))


def _table(rows: list[Point]) -> pa.Table:
    names = _quantities(rows)
    types = dict.fromkeys(names, pa.float64()) | dict.fromkeys(("bytes", CACHE_BYTES), pa.int64())
    columns = {
        "number": pa.array([row["number"] for row in rows], pa.int64()),
        "origin": pa.array([row["origin"] for row in rows], pa.string()),
        **{q: pa.array([row["values"].get(q) for row in rows], types[q]) for q in names},
        "allocation": pa.array(
            [list(row["allocation"].items()) for row in rows], pa.map_(pa.string(), pa.string())
        ),
    }
    return pa.table(columns)


def _written(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()
