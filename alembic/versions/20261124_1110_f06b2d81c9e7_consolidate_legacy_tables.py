"""consolidate legacy tables

The rows of HARCA's `embeddings` and `code_vectors` come into vector_embeddings while the
application reads and writes; the tables are kept in schema legacy, and updatable views of
the same names stand in their place. Triggers keep both sides in step. DESIGN would have the
view on vector_embeddings itself; on the kept table, defaults, constraints, triggers,
RETURNING, NULL metadata and the exact jsonb of the application's statements stay what they
were, rows without a vector too, and the way back is to move the table. The price is that
these rows are stored twice (docs/consolidation.md).

Phase: migrate; the old application and the new one both work before, during and after.
Locks: SHARE ROW EXCLUSIVE on each table while its triggers are created; ACCESS EXCLUSIVE
    while it is moved, both for milliseconds, with lock_timeout and retries; row locks of
    batches of about 500 rows in between.
Reverse: the tables are moved back, with what was written meanwhile; search functions,
    grants and indexes are as before; the rows leave vector_embeddings.

Revision ID: f06b2d81c9e7
Revises: e4c7a90b53d8
Create Date: 2026-11-24 11:10:00+00:00
"""

from alembic import context, op

from harca import revisions

revision = "f06b2d81c9e7"
down_revision = "e4c7a90b53d8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the rows over, and swap tables for views; nothing to do where there are none."""
    if context.is_offline_mode():
        op.execute("-- The old tables, if there are any, are consolidated online only.")
        return
    revisions.consolidate_tables(op, revision=revision)


def downgrade() -> None:
    """Swap back."""
    if not context.is_offline_mode():
        revisions.restore_tables(op)
