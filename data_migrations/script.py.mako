"""${message}

Source: ${"which store"}
Reverse: deletes the rows of this revision's run and nothing else.

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}
"""

from alembic import op
from harca import revisions

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}
requires_schema = "a91c6e08b7d2"


def upgrade() -> None:
    """Load the store and prove it; a second run resumes the first."""
    revisions.load_store(op, revision=revision, requires_schema=requires_schema)


def downgrade() -> None:
    """Take back what this revision loaded."""
    revisions.unload(op, revision=revision)
