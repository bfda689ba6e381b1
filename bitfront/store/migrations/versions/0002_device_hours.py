"""Hours that workers held tasks, and how many an owner may have."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column("api_keys", sa.Column("max_device_hours", sa.Float(), nullable=True))
    op.add_column("studies", sa.Column("max_device_hours", sa.Float(), nullable=True))
    seconds = sa.Column("seconds", sa.Float(), nullable=False, server_default="0")
    op.add_column("tasks", seconds)
    op.create_table(
        "usage",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_usage")),
    )
