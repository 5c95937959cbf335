"""keep how each space is searched, and what was measured

space_settings: the index that a space is to have, the session parameters of its searches,
who embeds texts for it. measurements: results of `harca bench`, `harca index advise` and
`harca soak`, which `harca report` shows.

Phase: expand.
Locks: none but on the new tables.
Reverse: drops tables that are empty; the others are kept in schema harca_aside, and
    the next upgrade brings them back.

Revision ID: 7c15d08e42b6
Revises: f06b2d81c9e7
Create Date: 2026-11-28 13:30:00+00:00
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

from harca import revisions

revision = "7c15d08e42b6"
down_revision = "f06b2d81c9e7"
branch_labels = None
depends_on = None

TABLES = ("space_settings", "measurements")


def upgrade() -> None:
    """Create the two tables, or bring back those kept aside."""
    aside = {
        table for table in TABLES if not context.is_offline_mode() and revisions.is_aside(op, table)
    }
    for table in sorted(aside):
        revisions.bring_back_table(op, table)
    now = sa.text("CURRENT_TIMESTAMP")
    empty = sa.text("'{}'")
    if "space_settings" not in aside:
        op.create_table(
            "space_settings",
            sa.Column("model_id", sa.Text, primary_key=True),
            sa.Column("dims", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("method", sa.Text),
            sa.Column("type", sa.Text),
            sa.Column("parameters", JSONB, nullable=False, server_default=empty),
            sa.Column("effort", JSONB, nullable=False, server_default=empty),
            sa.Column("embedder", sa.Text),
            sa.Column("measured", JSONB, nullable=False, server_default=empty),
            sa.Column(
                "updated_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=now
            ),
            sa.CheckConstraint(
                "method IN ('exact', 'hnsw', 'ivfflat')", name="space_settings_method_check"
            ),
            sa.CheckConstraint(
                "type IN ('vector', 'halfvec', 'bit')", name="space_settings_type_check"
            ),
        )
    if "measurements" not in aside:
        op.create_table(
            "measurements",
            sa.Column("measurement_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
            sa.Column("kind", sa.Text, nullable=False),
            sa.Column("taken_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=now),
            sa.Column("harca", sa.Text, nullable=False),
            sa.Column("server", sa.Text, nullable=False),
            sa.Column("result", JSONB, nullable=False),
        )
        op.create_index("measurements_kind_taken_at_idx", "measurements", ["kind", "taken_at"])


def downgrade() -> None:
    """Drop the tables, or keep those aside that have rows."""
    for table in reversed(TABLES):
        revisions.put_table_aside(op, table)
