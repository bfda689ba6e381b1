"""Hours that workers held an owner's tasks, and how many a key has."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Count from now on; the tasks that are done took no time that was written down."""
    op.create_table(
        "usage",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_usage")),
    )
    op.add_column("studies", sa.Column("max_device_hours", sa.Float(), nullable=True))
    op.add_column("api_keys", sa.Column("max_device_hours", sa.Float(), nullable=True))
    nothing = sa.Column("seconds", sa.Float(), nullable=False, server_default=sa.text("0"))
    op.add_column("tasks", nothing)
