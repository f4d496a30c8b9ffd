"""What is known of buyers."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE facts (
    tenant_id        text NOT NULL,
    conversation_id  text NOT NULL,
    dimension        text NOT NULL CHECK (length(dimension) <= 64),
    value            text NOT NULL CHECK (length(value) <= 500),
    seq              int NOT NULL CHECK (seq >= 1),
    confidence       real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    extracted_by     text NOT NULL CHECK (length(extracted_by) <= 64),
    written_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, conversation_id, dimension),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations ON DELETE CASCADE
);
COMMENT ON TABLE facts IS 'The latest of what is known of a buyer, by dimension of the taxonomy; goes with its conversation.';
COMMENT ON COLUMN facts.seq IS 'The turn of the conversation whose message tells it.'
"""

DOWNGRADE = """
DROP TABLE IF EXISTS facts
"""


def _each(script: str) -> None:
    # The driver prepares statements, and a prepared statement is one statement.
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)


def upgrade() -> None:
    _each(UPGRADE)


def downgrade() -> None:
    _each(DOWNGRADE)
