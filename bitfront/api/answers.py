"""Bodies of answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bitfront.store.records import Stage, StudyState, TaskState
from bitfront.trial import TrialState

T = TypeVar("T")
StudyId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Links = dict[str, str]


class Answer(BaseModel):
    """A response."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Page(Answer, Generic[T]):
    """Some of many."""

    items: list[T]
    next_page_token: str | None
    """Where the next page begins; null on the last."""


class Place(Answer):
    """Where in a request something is wrong."""

    detail: str
    pointer: str | None = None
    """JSON pointer into the body."""
    parameter: str | None = None
    """Of path or query."""
    header: str | None = None


class Problem(Answer):
    """What went wrong, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[Place]


class Progress(Answer):
    """Steps of the stage a study is in."""

    done: int
    total: int


class StudyAnswer(Answer):
    """A study and where it stands."""

    id: StudyId
    owner: str
    state: StudyState
    stage: str
    """What is done, or was last: prepare, estimate, search, evaluate; while a task of the first two
    runs, its steps, such as fetch, text, quantize."""
    progress: Progress
    seconds_left: float | None
    """At the pace of the measurements so far; null while that is not known."""
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    request: dict[str, Any]
    """What was asked, defaults included, as a request would have it."""
    links: Links


class TrialSummary(Answer):
    """A measured allocation, or one that is to be measured, without its formats."""

    study_id: StudyId
    number: int
    text: str
    """What it is measured on: `calibration` guides the search, `evaluation` is reported."""
    origin: str
    state: TrialState
    values: dict[str, float]
    error: str | None


class TrialAnswer(TrialSummary):
    """A trial with the format of each layer."""

    allocation: dict[str, str]
    target: str
    """Budget and search that it was proposed for."""


class PointAnswer(Answer):
    """A point of a front."""

    number: int
    """Of its trial."""
    origin: str
    values: dict[str, float]
    allocation: dict[str, str]
    """Format of each layer."""


class TableName(Answer):
    """A layer table by name."""

    name: str
    links: Links


class TableRow(Answer):
    """A layer in a format."""

    layer: str
    format: str
    value: float | None
    """Null where the format does not fit the layer."""


class TableAnswer(Answer):
    """A number for every layer in every format."""

    study_id: StudyId
    name: str
    quantity: str
    source: str
    """What made it."""
    reduction: str
    """How layers that share a format combine: sum or max."""
    note: str
    rows: list[TableRow]


class CheckpointAnswer(Answer):
    """A point that is to be, or was, written."""

    study_id: StudyId
    number: int
    trial: int
    exporter: str
    state: TaskState
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    links: Links


class CheckpointFile(Answer):
    """A file of a checkpoint."""

    name: str
    sha256: str
    size: int
    links: Links


class CheckpointDetail(CheckpointAnswer):
    """A checkpoint with its files."""

    files: list[CheckpointFile]


class ManifestFile(Answer):
    """A file that a manifest vouches for."""

    name: str
    sha256: str
    size: int


class Signature(Answer):
    """Who vouches for a manifest."""

    algorithm: str
    key_id: str
    """First digits of the SHA-256 of the key."""
    value: str


class ManifestAnswer(Answer):
    """What a checkpoint is, for those who deploy it."""

    bitfront: str
    study: dict[str, Any]
    checkpoint: int
    exporter: str
    trial: int
    text: str
    origin: str
    values: dict[str, float]
    allocation: dict[str, str]
    files: list[ManifestFile]
    signature: Signature


class ManifestKey(Answer):
    """What checks the signatures of this server's manifests."""

    algorithm: str
    key_id: str
    """As in the signature of each manifest."""
    public_key: str
    """In hexadecimal."""


class PluginAnswer(Answer):
    """An alternative of a kind."""

    name: str
    summary: str
    parameters: dict[str, Any]
    """JSON schema of its parameters; ranges are checked where it is built."""


class FormatAnswer(Answer):
    """A format that a menu may have."""

    name: str
    num_bits: int
    """Of a code."""
    group_columns: int | None
    """Columns that share a scale; null for a whole row."""
    bits_per_weight: float
    """Stored bits of a weight in a matrix of 4096 rows and columns, scales included."""


class PluginsAnswer(Answer):
    """Everything that a study may name."""

    kinds: dict[str, list[PluginAnswer]]
    formats: list[FormatAnswer]


class ModelEstimate(Answer):
    """What the headers of the weights tell; the layers are guessed from their names."""

    n_parameters: int
    nbytes: int
    """Of the weight files."""
    n_layers: int
    """Matrices that the search covers."""
    n_layer_parameters: int
    bank_bytes: dict[str, int]
    """Disk for every layer in each format of weights of the menu."""
    cache_bytes: dict[str, int] | None
    """KV cache at the batch and context of the study, in each format of its menu that fits all
    blocks; null where none is searched, or the configuration does not say how large it is."""
    flops: int | None
    """Of all measurements; null where the configuration does not say how many positions of an image
    a matrix multiplies, as of convolutions."""
    seconds_at_least: dict[str, float]
    """At the peak rate of each device, which nothing reaches; empty where `flops` is null."""


class EstimateAnswer(Answer):
    """What a study would take."""

    n_measurements: dict[str, int]
    """At most, by text."""
    n_tokens: dict[str, int]
    """Forward passes of all measurements by text, in `unit`."""
    n_estimator_tokens: int
    """What of calibration the estimator sees, once or several times, in `unit`."""
    unit: Literal["tokens", "images"]
    """What is counted: images for models that classify them."""
    model: ModelEstimate | None
    """Null where the model is not a folder of this installation."""


class TaskAnswer(Answer):
    """What a worker does."""

    id: int
    study_id: StudyId
    stage: Stage
    number: int
    queue: str
    worker: str | None
    attempts: int
    """Claims that ended neither in a result nor in an orderly release, this one included."""
    lease_until: datetime | None
    started_at: datetime | None


class WorkerAnswer(Answer):
    """A process that takes tasks."""

    name: str
    queue: str
    transport: str
    version: str
    started_at: datetime
    seen_at: datetime
    tasks: list[TaskAnswer]


class WorkersAnswer(Answer):
    """Workers that were heard of lately."""

    items: list[WorkerAnswer]
    adrift: list[TaskAnswer]
    """Tasks held by none of them; they are taken over when their leases end."""
