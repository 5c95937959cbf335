"""keep embeddings in line

pgvector stores a vector over 2 kB in the TOAST table, piece by piece. In line, as long as
a row fits its page, exact search of 1536-d embeddings takes half the time and loading an
eighth less (docs/tuning.md); larger ones go out of line as before.

Phase: expand; rows written from now on are in line, others stay as they are.
Locks: SHARE UPDATE EXCLUSIVE on vector_embeddings, briefly; reads and writes continue.
Reverse: new rows are stored out of line again; no row changes.

Revision ID: d2f84b6a17e5
Revises: a91c6e08b7d2
Create Date: 2026-11-24 00:20:00+00:00
"""

from alembic import op

revision = "d2f84b6a17e5"
down_revision = "a91c6e08b7d2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Store in line what fits a page."""
    op.execute("ALTER TABLE vector_embeddings ALTER COLUMN embedding SET STORAGE MAIN")


def downgrade() -> None:
    """Store as pgvector does by default."""
    op.execute("ALTER TABLE vector_embeddings ALTER COLUMN embedding SET STORAGE EXTERNAL")
