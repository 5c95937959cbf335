"""note legacy tables

What the next revision needs to bring HARCA's old tables over: notes of how far each is, and
a function that reads a vector out of jsonb.

Phase: expand.
Locks: none but on new objects.
Reverse: puts tables back that the next revision was interrupted at, then drops both.

Revision ID: e4c7a90b53d8
Revises: d2f84b6a17e5
Create Date: 2026-11-24 11:00:00+00:00
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

from harca import revisions

revision = "e4c7a90b53d8"
down_revision = "d2f84b6a17e5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of notes and the function."""
    op.create_table(
        "legacy_tables",
        sa.Column("schema_name", sa.Text, primary_key=True),
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("run_id", sa.BigInteger, sa.ForeignKey("load_runs.run_id"), nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("kept_in", sa.Text),
        sa.Column("details", JSONB, nullable=False, server_default=sa.text("'{}'")),
    )
    op.execute(
        """
        CREATE FUNCTION vector_of_json(written jsonb) RETURNS vector
        LANGUAGE plpgsql IMMUTABLE STRICT AS $$
        BEGIN
            IF jsonb_typeof(written) = 'array' THEN
                RETURN written::text::vector;
            END IF;
            RETURN NULL;
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            RETURN NULL;  -- not numbers, out of range, too many or none
        END
        $$
        """
    )


def downgrade() -> None:
    """Drop both; nothing is kept in them once the tables are back."""
    if not context.is_offline_mode():
        revisions.restore_tables(op)
    op.execute("DROP FUNCTION vector_of_json(jsonb)")
    op.drop_table("legacy_tables")
