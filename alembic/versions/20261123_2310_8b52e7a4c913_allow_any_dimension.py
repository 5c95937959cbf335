"""allow embeddings of any dimension

The real store holds vectors of 3 to 1536 dimensions; VECTOR(1536) refuses most of it.
The type widens without a rewrite, but the index on it must go first. The plan's index
lives on for the rows that it can hold, those with 1536 dimensions.

Phase: expand.
Locks: ACCESS EXCLUSIVE on vector_embeddings while dims is added, which rewrites the
    table, and SHARE while the two indexes are built.
Reverse: rows that VECTOR(1536) cannot hold are moved to schema harca_aside, and the
    next upgrade brings them back.

Revision ID: 8b52e7a4c913
Revises: 3f1a6c0d9b21
Create Date: 2026-11-23 23:10:00+00:00
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR

from harca import revisions

revision = "8b52e7a4c913"
down_revision = "3f1a6c0d9b21"
branch_labels = None
depends_on = None

TABLE = "vector_embeddings"
INDEX = "vector_embeddings_embedding_idx"
ASIDE = "vector_embeddings_other_dims"
COLUMNS = "id, content, embedding, metadata, model_id, created_at, updated_at, source"


def upgrade() -> None:
    """Widen the column, add dims, and bring back the rows kept aside."""
    op.drop_index(INDEX, TABLE)
    op.alter_column(TABLE, "embedding", type_=VECTOR(), existing_nullable=False)
    op.add_column(
        TABLE,
        sa.Column("dims", sa.Integer, sa.Computed("vector_dims(embedding)", persisted=True)),
    )
    revisions.bring_back_rows(op, TABLE, aside=ASIDE, columns=COLUMNS)
    op.create_index("vector_embeddings_model_id_dims_idx", TABLE, ["model_id", "dims"])
    revisions.allow_index_memory(op)
    op.create_index(
        INDEX,
        TABLE,
        [sa.text("(embedding::vector(1536)) vector_cosine_ops")],
        postgresql_using="ivfflat",
        postgresql_with={"lists": 100},
        postgresql_where=sa.text("dims = 1536"),
    )


def downgrade() -> None:
    """Move the other rows aside, and narrow the column again."""
    op.drop_index(INDEX, TABLE)
    op.drop_index("vector_embeddings_model_id_dims_idx", TABLE)
    revisions.put_rows_aside(op, TABLE, aside=ASIDE, columns=COLUMNS, where="dims <> 1536")
    op.drop_column(TABLE, "dims")
    op.alter_column(TABLE, "embedding", type_=VECTOR(1536), existing_nullable=False)
    revisions.allow_index_memory(op)
    op.create_index(
        INDEX,
        TABLE,
        ["embedding"],
        postgresql_using="ivfflat",
        postgresql_ops={"embedding": "vector_cosine_ops"},
        postgresql_with={"lists": 100},
    )
