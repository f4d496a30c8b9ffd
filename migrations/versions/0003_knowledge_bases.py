"""Knowledge bases."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = ""

DOWNGRADE = ""


def _each(script: str) -> None:
    # The driver prepares statements, and a prepared statement is one statement.
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)


def upgrade() -> None:
    _each(UPGRADE)


def downgrade() -> None:
    _each(DOWNGRADE)
