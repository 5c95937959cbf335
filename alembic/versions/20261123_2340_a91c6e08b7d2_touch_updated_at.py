"""set updated_at on every change

A row that an application changes gets a new updated_at; a statement that sets the
column itself is respected, so that a load can give all its rows one time. Rows changed
since they were loaded are then told by it.

Phase: expand.
Locks: SHARE ROW EXCLUSIVE on vector_embeddings, briefly.
Reverse: drops the trigger and its function; no row changes.

Revision ID: a91c6e08b7d2
Revises: 5e7b20c3d4f6
Create Date: 2026-11-23 23:40:00+00:00
"""

from alembic import op

revision = "a91c6e08b7d2"
down_revision = "5e7b20c3d4f6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the trigger and its function."""
    op.execute(
        """
        CREATE FUNCTION vector_embeddings_touch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
                NEW.updated_at := CURRENT_TIMESTAMP;
            END IF;
            RETURN NEW;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER vector_embeddings_touch BEFORE UPDATE ON vector_embeddings
        FOR EACH ROW EXECUTE FUNCTION vector_embeddings_touch()
        """
    )


def downgrade() -> None:
    """Drop both."""
    op.execute("DROP TRIGGER vector_embeddings_touch ON vector_embeddings")
    op.execute("DROP FUNCTION vector_embeddings_touch()")
