"""create vector_embeddings

The table as HARCA's plan has it, to the letter. Later revisions evolve it.

Phase: expand; nothing uses the table yet.
Locks: none but on the new table.
Reverse: drops the table if it is empty. With rows in it, it is kept in schema
    harca_aside, indexes and sequence too, and the next upgrade brings it back.

Revision ID: 3f1a6c0d9b21
Revises:
Create Date: 2026-11-23 23:00:00+00:00
"""

import sqlalchemy as sa
from alembic import context, op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import JSONB

from harca import revisions

revision = "3f1a6c0d9b21"
down_revision = None
branch_labels = None
depends_on = None

TABLE = "vector_embeddings"


def upgrade() -> None:
    """Create the table and its three indexes, or bring back the one kept aside."""
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    if not context.is_offline_mode() and revisions.is_aside(op, TABLE):
        revisions.bring_back_table(op, TABLE)
        return
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer, primary_key=True),  # SERIAL
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("embedding", VECTOR(1536), nullable=False),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("model_id", sa.String(50), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=now),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=now),
        sa.Column("source", sa.String(50), server_default=sa.text("'unknown'")),
    )
    op.create_index(
        "vector_embeddings_embedding_idx",
        TABLE,
        ["embedding"],
        postgresql_using="ivfflat",
        postgresql_ops={"embedding": "vector_cosine_ops"},
        postgresql_with={"lists": 100},
    )
    op.create_index("vector_embeddings_metadata_idx", TABLE, ["metadata"], postgresql_using="gin")
    op.create_index("vector_embeddings_source_idx", TABLE, ["source"])


def downgrade() -> None:
    """Drop the table, or put it aside if it holds rows. The extension stays."""
    revisions.put_table_aside(op, TABLE)
