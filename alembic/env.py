"""The schema environment: `alembic upgrade head`."""

from alembic import context

from harca import migrations
from harca.postgres.schema import is_ours_to_compare, metadata

migrations.run(
    context,
    version_table=migrations.SCHEMA.version_table,
    target_metadata=metadata,
    include_object=is_ours_to_compare,
)
