"""Settings of the service, from `BITFRONT_*` in the environment or a file that it names."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """How the parts of a service find each other; the embedded service needs none of them.

    Every field is an environment variable with the prefix `BITFRONT_`, such as
    `BITFRONT_DATABASE_URL`.
    """

    model_config = SettingsConfigDict(env_prefix="BITFRONT_", extra="forbid")

    home: Path = Field(
        default=Path.home() / ".cache" / "bitfront", description="Folder of this machine."
    )
    database_url: str = Field(
        default="", description="SQLite or PostgreSQL; default: a file in `home`."
    )
    broker_url: str = Field(
        default="", description="Redis of the Celery workers; empty: local workers."
    )
    artifacts_url: str = Field(
        default="", description="Folder or s3://bucket/prefix; default: in `home`."
    )
    model_roots: tuple[Path, ...] = Field(
        default=(), description="Folders that models are read from."
    )
    data_roots: tuple[Path, ...] = Field(
        default=(), description="Folders that texts are read from."
    )
    hub: bool = Field(default=True, description="Whether models and texts may be named `org/name`.")
    lease_seconds: float = Field(
        default=60.0, gt=0, description="How long a silent worker keeps a task."
    )
    task_seconds: float = Field(default=6 * 3600.0, gt=0, description="Longest time of one task.")
    max_worker_gb: float = Field(
        default=0.0, ge=0, description="Renew a worker above this; 0 for never."
    )
    device: str = Field(default="auto", description="auto, cpu or cuda: what a worker measures on.")
    docs: bool = Field(
        default=False, description="Whether the API shows its documentation at /docs."
    )
    max_layers: int = Field(default=65_536, gt=0, description="Largest model, in layers.")
    max_trials: int = Field(default=100_000, gt=0, description="Most measurements of a study.")

    @property
    def database(self) -> str:
        """URL of the database."""
        return self.database_url or f"sqlite:///{self.home / 'bitfront.db'}"

    @property
    def artifacts(self) -> str:
        """Where artifacts are kept."""
        return self.artifacts_url or str(self.home / "artifacts")
