"""Assets that agents made."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE assets (
    asset_id         text PRIMARY KEY CHECK (asset_id ~ '^[A-Za-z0-9_-]{32}$'),
    turn_id          uuid NOT NULL REFERENCES turns ON DELETE CASCADE,
    tenant_id        text NOT NULL,
    conversation_id  text NOT NULL,
    media_type       text NOT NULL CHECK (media_type IN
        ('image/svg+xml', 'image/png', 'image/jpeg', 'image/webp', 'text/plain')),
    sha256           bytea NOT NULL CHECK (octet_length(sha256) = 32),
    content          bytea NOT NULL CHECK (octet_length(content) BETWEEN 1 AND 1048576),
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (turn_id, sha256, media_type)
);
COMMENT ON COLUMN assets.asset_id IS 'Unguessable: whoever knows it may read the asset.';

-- How many images each tenant asked for, by day (UTC).
CREATE TABLE image_days (
    tenant_id  text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    day        date NOT NULL,
    asked      int NOT NULL,
    PRIMARY KEY (tenant_id, day)
);
"""

DOWNGRADE = """
DROP TABLE image_days, assets;
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
