"""The entry point of the group ``alembic.plugins``: harca's operations on Alembic's ``op``.

Alembic loads it whenever it is imported, in any project of the same environment, before it
is ready itself. So it imports nothing until it is asked, and then nothing of harca that
needs more than Alembic.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin


def setup(plugin: "Plugin") -> None:
    """Register the operations: importing them does."""
    from harca import operations  # noqa: F401
