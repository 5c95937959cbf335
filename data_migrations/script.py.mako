<%
    # `harca plan` gives `planned`, written as Python. `alembic revision` does not: fill in the
    # store, and pins if it must not change before it is loaded.
    given = context.get("planned") or {
        "message": message,
        "source": "which store",
        "store": 'store = "/path/to/the/store"',
        "options": "options = {}",
        "pins": "pins = None",
    }
%>\
"""${given["message"]}

Source: ${given["source"]}
Locks: none that reads or writes wait for; rows are committed batch by batch.
Reverse: deletes the rows of this revision's run and restores what they overwrote,
    nothing else; refuses if rows were changed since (-x changed=keep or delete).

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}
"""

from alembic import op

revision = ${'"%s"' % up_revision}
down_revision = ${'"%s"' % down_revision if down_revision else None}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}
requires_schema = "a91c6e08b7d2"

${given["store"]}
${given["options"]}
${given["pins"]}


def upgrade() -> None:
    """Load the store if it is as planned, and prove it; a second run resumes the first."""
    op.load_store(store, revision=revision, requires_schema=requires_schema, pins=pins, **options)


def downgrade() -> None:
    """Take back what this revision loaded."""
    op.unload_store(revision=revision)
