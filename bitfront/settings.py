"""Settings of the service, from `BITFRONT_*` in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

AUDIT_DAYS = 365.0
"""How long it is kept who did what, where nobody says otherwise."""
UpToADay = Annotated[float, Field(gt=0, le=86_400)]
"""Seconds."""


class Settings(BaseSettings):
    """How the parts of a service find each other; a service on one machine needs none of them.

    Every field is an environment variable with the prefix `BITFRONT_`, such as
    `BITFRONT_DATABASE_URL`; lists are JSON.

    Args:
        home: folder of this machine: quantized weights, and whatever the next two leave to it.
        database_url: SQLite or PostgreSQL; empty for a file in `home`.
        artifacts_url: a folder or `s3://bucket/prefix`; empty for a folder in `home`.
        broker_url: Redis of the Celery workers; empty for local workers.
        model_roots: folders that models may be read from, the same on every machine.
        data_roots: folders that texts may be read from, the same on every machine.
        hub: whether models and texts may be named `org/name`.
        lease_seconds: how long a worker that is not heard of keeps its task.
        task_seconds: longest time of one task.
        max_worker_gb: a worker that used more memory is started anew; 0 for no limit.
        device: what a worker measures on where a study leaves it open.
        optuna_url: SQLite or PostgreSQL of the Optuna mirror, for nothing else; empty for a file
            in `home`, or the schema `optuna` beside the tables of a PostgreSQL `database_url`.
        dashboard_host: where the dashboard listens; beyond this machine only once a key exists.
        dashboard_port: port of the dashboard; 0 for any free one.
        mirror_seconds: pause between two updates of the mirror.
        max_layers: largest model, in layers.
        max_model_gb: largest model of the hub, in units of 10^9 bytes; 0 for what the disk holds.
        max_trials: most measurements of a study.
        audit_days: how long it is kept who did what.
    """

    model_config = SettingsConfigDict(env_prefix="BITFRONT_")

    home: Path = Path.home() / ".cache" / "bitfront"
    database_url: str = ""
    artifacts_url: str = ""
    broker_url: str = ""
    model_roots: tuple[Path, ...] = ()
    data_roots: tuple[Path, ...] = ()
    hub: bool = True
    lease_seconds: UpToADay = 60.0
    task_seconds: PositiveFloat = 6 * 3600.0
    max_worker_gb: NonNegativeFloat = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    optuna_url: str = ""
    dashboard_host: str = "127.0.0.1"
    dashboard_port: Annotated[int, Field(ge=0, le=65_535)] = 8766
    mirror_seconds: UpToADay = 5.0
    max_layers: PositiveInt = 65_536
    max_model_gb: NonNegativeFloat = 0.0
    max_trials: PositiveInt = 100_000
    audit_days: Annotated[float, Field(gt=0, le=100_000)] = AUDIT_DAYS

    @property
    def database(self) -> str:
        """URL of the database."""
        return self.database_url or f"sqlite:///{self.home / 'bitfront.db'}"

    @property
    def optuna(self) -> str:
        """URL of the Optuna mirror, whose tables have names that ours have too."""
        if self.optuna_url:
            return self.optuna_url
        if self.database.startswith("sqlite"):
            return f"sqlite:///{self.home / 'optuna.db'}"
        joint = "&" if "?" in self.database else "?"
        return f"{self.database}{joint}options=-csearch_path%3Doptuna"

    @property
    def artifacts(self) -> str:
        """Where artifacts are kept."""
        return self.artifacts_url or str(self.home / "artifacts")
