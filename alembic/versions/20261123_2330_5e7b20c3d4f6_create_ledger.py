"""create the ledger: load_runs, load_batches, rejections, superseded

Every record that a run reads ends in one bucket: read = loaded + unchanged +
superseded + rejected. A batch is noted in the transaction that brings its rows.

Phase: expand.
Locks: none but on the new tables.
Reverse: drops tables that are empty; the others are kept in schema harca_aside, and
    the next upgrade brings them back.

Revision ID: 5e7b20c3d4f6
Revises: c04d19f7e6a8
Create Date: 2026-11-23 23:30:00+00:00
"""

import sqlalchemy as sa
from alembic import context, op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import JSONB

from harca import revisions

revision = "5e7b20c3d4f6"
down_revision = "c04d19f7e6a8"
branch_labels = None
depends_on = None

TABLES = ("load_runs", "load_batches", "rejections", "superseded")


def upgrade() -> None:
    """Create the four tables, or bring back those kept aside."""
    if not context.is_offline_mode() and revisions.is_aside(op, "load_runs"):
        for table in TABLES:
            revisions.bring_back_table(op, table)
        return
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        "load_runs",
        sa.Column("run_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("revision", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("options", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("read", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("loaded", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("unchanged", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("superseded", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("rejected", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("notes", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("fingerprint", sa.Text),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=now),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("rolled_back_at", sa.TIMESTAMP(timezone=True)),
        sa.CheckConstraint(
            "status IN ('loading', 'loaded', 'verified', 'different', 'rolled back')",
            name="load_runs_status_check",
        ),
    )
    op.create_index("load_runs_store_idx", "load_runs", ["store"])
    op.create_table(
        "load_batches",
        sa.Column("run_id", sa.BigInteger, sa.ForeignKey("load_runs.run_id"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("read", sa.Integer, nullable=False),
        sa.Column("loaded", sa.Integer, nullable=False),
        sa.Column("unchanged", sa.Integer, nullable=False),
        sa.Column("superseded", sa.Integer, nullable=False),
        sa.Column("rejected", sa.Integer, nullable=False),
        sa.Column("first_origin", sa.Text, nullable=False),
        sa.Column("last_origin", sa.Text, nullable=False),
        sa.Column("committed_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=now),
    )
    op.create_table(
        "rejections",
        sa.Column("rejection_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("run_id", sa.BigInteger, sa.ForeignKey("load_runs.run_id"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("rejected_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=now),
    )
    op.create_index("rejections_run_id_idx", "rejections", ["run_id"])
    op.create_table(
        "superseded",
        sa.Column("superseded_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("run_id", sa.BigInteger, sa.ForeignKey("load_runs.run_id"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("store_key", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("embedding", VECTOR(), nullable=False),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("source", sa.Text),
        sa.Column("row_id", sa.Integer),
        sa.Column("row_run_id", sa.BigInteger),
        sa.Column("row_updated_at", sa.TIMESTAMP(timezone=True)),
        sa.CheckConstraint(
            "kind IN ('conflict', 'outlived', 'duplicate', 'overwritten')",
            name="superseded_kind_check",
        ),
    )
    op.create_index("superseded_store_store_key_idx", "superseded", ["store", "store_key"])
    op.create_index("superseded_run_id_idx", "superseded", ["run_id"])


def downgrade() -> None:
    """Drop the tables, or keep all four aside if there was ever a run."""
    revisions.put_tables_aside(op, TABLES, unless_empty="load_runs")
