<%
    # `harca index advise` gives `planned`, written as Python. `alembic revision` does not: fill
    # it in.
    given = context.get("planned") or {
        "message": message,
        "about": "",
        "phase": "expand or contract; what must have happened before",
        "locks": "which, on what, for how long",
        "reverse": "what the downgrade does with the rows",
        "upgrades": upgrades or "pass",
        "downgrades": downgrades or "pass",
    }
%>\
"""${given["message"]}

% if given["about"]:
${given["about"]}

% endif
Phase: ${given["phase"]}
Locks: ${given["locks"]}
Reverse: ${given["reverse"]}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}
"""

% if not context.get("planned"):
import sqlalchemy as sa
% endif
from alembic import op
${imports if imports else ""}
revision = ${'"%s"' % up_revision}
down_revision = ${'"%s"' % down_revision if isinstance(down_revision, str) else repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """${given["message"]}."""
    ${given["upgrades"]}


def downgrade() -> None:
    """Undo it, keeping the rows."""
    ${given["downgrades"]}
