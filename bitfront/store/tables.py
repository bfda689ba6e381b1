"""Every table of the study database; SQLite and PostgreSQL have the same ones.

Times are seconds since 1970 on the database's own clock.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

spaces = Table(
    "spaces",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("body", Text, nullable=False),
)
"""Layers and formats, stored once however many studies search them."""

studies = Table(
    "studies",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("request", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("done", Integer, nullable=False, default=0),
    Column("total", Integer, nullable=False, default=0),
    Column("search_ended", Boolean, nullable=False, default=False),
    # Of the key that submitted, resumed or extended it last.
    Column("max_device_hours", Float),
    Column("queue", String(16), nullable=False),
    Column("space", String(64), ForeignKey("spaces.digest")),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Index(None, "owner", "id"),
    Index(None, "state"),
)

trials = Table(
    "trials",
    metadata,
    Column("study_id", String(32), ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("text", String(16), nullable=False),
    # Position among the proposals; NULL for baselines and for measurements of finalists.
    Column("proposal", Integer),
    Column("origin", String(64), nullable=False),
    Column("target", Text, nullable=False),
    # One byte a group: the column of its format on the menu of the space.
    Column("choice", LargeBinary, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    # `values` is a reserved word of SQL.
    Column("measured", Text, nullable=False),
    Column("error", Text),
    UniqueConstraint("study_id", "text", "digest"),
    UniqueConstraint("study_id", "proposal"),
    Index(None, "study_id", "state"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_id", String(32), ForeignKey("studies.id", ondelete="CASCADE"), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("number", Integer, nullable=False),
    Column("queue", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    # Grows with every claim and never falls: who holds a smaller one is too late.
    Column("fence", Integer, nullable=False, default=0),
    # Claims that ended neither in a result nor in an orderly release.
    Column("attempts", Integer, nullable=False, default=0),
    # That ended claims held it.
    Column("seconds", Float, nullable=False, default=0.0, server_default="0"),
    Column("worker", String(128)),
    Column("lease_until", Float),
    # When the transport was last told of it; NULL while it was not.
    Column("rung_at", Float),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("error", Text),
    UniqueConstraint("study_id", "stage", "number"),
    Index(None, "state", "queue"),
)
"""What workers do: the queue, its leases, and the outbox of the transport in one."""

artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("nbytes", Float, nullable=False),
    Column("created_at", Float, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("study_id", String(32), ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(512), primary_key=True),
    Column("digest", String(64), ForeignKey("artifacts.digest"), nullable=False, index=True),
)
"""Which artifact each file of a study is: weights, references, layer tables, checkpoints."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("study_id", String(32), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("trial", Integer, nullable=False),
    Column("exporter", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    ForeignKeyConstraint(
        ["study_id", "trial"], ["trials.study_id", "trials.number"], ondelete="CASCADE"
    ),
    UniqueConstraint("study_id", "trial", "exporter"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_id", String(32), ForeignKey("studies.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index(None, "study_id", "id"),
    sqlite_autoincrement=True,
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("queue", String(16), nullable=False),
    Column("transport", String(16), nullable=False),
    Column("version", String(32), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("salt", String(32), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("scopes", String(200), nullable=False),
    Column("max_running", Integer, nullable=False),
    Column("max_device_hours", Float),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)

usage = Table(
    "usage",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("seconds", Float, nullable=False),
)
"""How long workers held tasks of studies that were deleted since."""

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("owner", String(64), nullable=False),
    Column("key_id", String(32)),
    Column("action", String(64), nullable=False),
    Column("target", String(200), nullable=False),
    Column("status", Integer, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("body_digest", String(64), nullable=False),
    Column("study_id", String(32), ForeignKey("studies.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Float, nullable=False),
)
