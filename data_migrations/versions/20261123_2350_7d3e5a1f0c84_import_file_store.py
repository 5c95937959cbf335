"""import the file store

Source: the store named by -x store=PATH, HARCA_FILE_STORE, or file_store in alembic.ini.
Locks: none that reads or writes wait for; rows are committed batch by batch.
Reverse: deletes the rows of this revision's run and restores what they overwrote,
    nothing else; refuses if rows were changed since (-x changed=keep or delete).

Revision ID: 7d3e5a1f0c84
Revises:
Create Date: 2026-11-23 23:50:00+00:00
"""

from alembic import op

from harca import revisions

revision = "7d3e5a1f0c84"
down_revision = None
branch_labels = None
depends_on = None
requires_schema = "a91c6e08b7d2"


def upgrade() -> None:
    """Load the store and prove it; a second run resumes the first."""
    revisions.load_store(op, revision=revision, requires_schema=requires_schema)


def downgrade() -> None:
    """Take back what this revision loaded."""
    revisions.unload(op, revision=revision)
