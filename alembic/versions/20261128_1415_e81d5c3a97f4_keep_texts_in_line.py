"""keep texts and metadata in line beside their embeddings

Of a row over 2 kB, PostgreSQL moves out what can be moved until it is below, and since
d2f84b6a17e5 that is everything but the embedding: a row of 1536 dimensions had its short
text and its metadata in the TOAST table, each to be fetched from there for every result
and every filter. From now on nothing is moved out of a row that fits its page.

Phase: expand; rows written from now on are in line, others stay as they are.
Locks: SHARE UPDATE EXCLUSIVE on vector_embeddings, briefly; reads and writes continue.
Reverse: new rows have their texts moved out again; no row changes.

Revision ID: e81d5c3a97f4
Revises: b3f19a6e27d0
Create Date: 2026-11-28 14:15:00+00:00
"""

from alembic import op

revision = "e81d5c3a97f4"
down_revision = "b3f19a6e27d0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move nothing out of a row that fits its page: 8160 is the most that can be said."""
    op.execute("ALTER TABLE vector_embeddings SET (toast_tuple_target = 8160)")


def downgrade() -> None:
    """Move out of a row over 2 kB, as PostgreSQL does by default."""
    op.execute("ALTER TABLE vector_embeddings RESET (toast_tuple_target)")
