"""add provenance: store, store_key, run_id

Which store a row came from, under which key, and which run brought it: loading is
idempotent by the first two, a rollback deletes by the third. Labels are kept verbatim,
so model_id and source become text.

Phase: expand.
Locks: ACCESS EXCLUSIVE on vector_embeddings, briefly: neither new columns without a
    default nor varchar -> text rewrite the table; SHARE while two indexes are built.
Reverse: the three columns are kept in schema harca_aside by row id, as are whole rows
    whose labels are longer than 50 characters. The next upgrade brings both back.

Revision ID: c04d19f7e6a8
Revises: 8b52e7a4c913
Create Date: 2026-11-23 23:20:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from harca import revisions

revision = "c04d19f7e6a8"
down_revision = "8b52e7a4c913"
branch_labels = None
depends_on = None

TABLE = "vector_embeddings"
PROVENANCE = ("store", "store_key", "run_id")
LONG_LABELS = "vector_embeddings_long_labels"
COLUMNS = "id, content, embedding, metadata, model_id, created_at, updated_at, source"


def upgrade() -> None:
    """Add the columns, and bring back what was kept aside."""
    op.alter_column(TABLE, "model_id", type_=sa.Text, existing_nullable=False)
    op.alter_column(TABLE, "source", type_=sa.Text)
    op.add_column(TABLE, sa.Column("store", sa.Text))
    op.add_column(TABLE, sa.Column("store_key", sa.Text))
    op.add_column(TABLE, sa.Column("run_id", sa.BigInteger))
    revisions.bring_back_rows(op, TABLE, aside=LONG_LABELS, columns=COLUMNS)
    revisions.bring_back_columns(op, TABLE, PROVENANCE, aside="vector_embeddings_provenance")
    op.create_unique_constraint(
        "vector_embeddings_store_store_key_key", TABLE, ["store", "store_key"]
    )
    op.create_index("vector_embeddings_run_id_idx", TABLE, ["run_id"])


def downgrade() -> None:
    """Keep the columns' values and the long labels aside."""
    revisions.put_columns_aside(op, TABLE, PROVENANCE, aside="vector_embeddings_provenance")
    revisions.put_rows_aside(
        op,
        TABLE,
        aside=LONG_LABELS,
        columns=COLUMNS,
        where="length(model_id) > 50 OR length(source) > 50",
    )
    op.drop_index("vector_embeddings_run_id_idx", TABLE)
    op.drop_constraint("vector_embeddings_store_store_key_key", TABLE)
    for column in PROVENANCE:
        op.drop_column(TABLE, column)
    op.alter_column(
        TABLE, "source", type_=sa.String(50), existing_server_default=sa.text("'unknown'")
    )
    op.alter_column(TABLE, "model_id", type_=sa.String(50), existing_nullable=False)
