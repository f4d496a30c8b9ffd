"""People who take conversations over."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE conversations ADD COLUMN keeper text NOT NULL DEFAULT 'agent' CHECK (keeper IN ('agent', 'human'));
ALTER TABLE conversations ADD COLUMN keeper_name text;
ALTER TABLE conversations ADD COLUMN keeper_reason text;
ALTER TABLE conversations ADD COLUMN keeper_since timestamptz;
COMMENT ON COLUMN conversations.keeper IS 'Who answers: agents, or a person. How it changed is in operator_audit.';
COMMENT ON COLUMN conversations.keeper_name IS 'The person, as whoever took over named them.';
COMMENT ON COLUMN conversations.keeper_since IS 'When the present keeper became it; NULL where it always was an agent.';
CREATE INDEX conversations_kept ON conversations (tenant_id, conversation_id) WHERE keeper = 'human';

ALTER TABLE turns ADD COLUMN said_by text;
COMMENT ON COLUMN turns.said_by IS 'The person whose message this turn is; nobody asked, and its content is what they wrote.';
ALTER TABLE turns DROP CONSTRAINT turns_source_check;
ALTER TABLE turns ADD CONSTRAINT turns_source_check
    CHECK (source IN ('primary', 'fallback', 'offline', 'human', 'none'));
"""

DOWNGRADE = """
DELETE FROM turns WHERE source = 'human' OR said_by IS NOT NULL;
ALTER TABLE turns DROP CONSTRAINT turns_source_check;
ALTER TABLE turns ADD CONSTRAINT turns_source_check CHECK (source IN ('primary', 'fallback', 'offline', 'none'));
ALTER TABLE turns DROP COLUMN said_by;
DROP INDEX conversations_kept;
ALTER TABLE conversations DROP COLUMN keeper, DROP COLUMN keeper_name, DROP COLUMN keeper_reason,
    DROP COLUMN keeper_since;
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
