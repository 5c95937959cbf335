"""The data environment: `alembic -n data upgrade head`."""

from alembic import context

from harca import migrations

migrations.refuse_offline(context)
migrations.run(context, version_table=migrations.DATA.version_table)
