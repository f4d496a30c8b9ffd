"""Tenants and keys, conversations, turns, the ledger of attempts, history, outbox, dead letters."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE tenants (
    tenant_id   text PRIMARY KEY CHECK (tenant_id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Secrets are 32 random bytes, so one round of SHA-256 with a pepper is enough; only the hash is kept.
CREATE TABLE api_keys (
    key_id       text PRIMARY KEY,
    tenant_id    text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    secret_hash  bytea NOT NULL,
    scopes       text[] NOT NULL CHECK (scopes <@ ARRAY['turns', 'operator'] AND cardinality(scopes) > 0),
    label        text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id);

-- A public key in a web page: it names the tenant and the origins that may ask for a visitor's token.
CREATE TABLE site_keys (
    site_key     text PRIMARY KEY,
    tenant_id    text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    origins      text[] NOT NULL CHECK (cardinality(origins) > 0),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at   timestamptz
);

CREATE TABLE conversations (
    tenant_id            text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    conversation_id      text NOT NULL,
    last_seq             int NOT NULL DEFAULT 0,
    force_frontier_next  boolean NOT NULL DEFAULT false,
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, conversation_id)
);

CREATE TABLE turns (
    turn_id          uuid PRIMARY KEY,
    tenant_id        text NOT NULL,
    conversation_id  text NOT NULL,
    seq              int NOT NULL CHECK (seq >= 1),
    channel          text NOT NULL,
    input_text       text NOT NULL,
    metadata         jsonb NOT NULL DEFAULT '{}',
    history          jsonb NOT NULL DEFAULT '[]',
    body_sha256      text NOT NULL,
    traceparent      text,
    kafka_topic      text NOT NULL,
    kafka_partition  int NOT NULL,
    kafka_offset     bigint NOT NULL,

    state            text NOT NULL CHECK (state IN (
        'received', 'preparing', 'queued', 'running', 'fallback', 'streaming', 'sealing', 'rescue', 'parked',
        'answered', 'truncated', 'bounded', 'handed_off', 'cancelled', 'rejected')),
    epoch            int NOT NULL DEFAULT 0,
    owner            text,
    lease_until      timestamptz,
    agent            text,
    plan             jsonb,
    head_at          timestamptz,
    hinted_at        timestamptz,
    hints            int NOT NULL DEFAULT 0,
    visible_at       timestamptz,
    deadline_at      timestamptz NOT NULL,

    content          text NOT NULL DEFAULT '',
    cuts             int[] NOT NULL DEFAULT '{}',
    closing          text,
    source           text NOT NULL DEFAULT 'none' CHECK (source IN ('primary', 'fallback', 'offline', 'none')),
    dimension        text,
    reason           text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at          timestamptz,

    UNIQUE (tenant_id, conversation_id, seq),
    UNIQUE (kafka_topic, kafka_partition, kafka_offset, turn_id),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations ON DELETE CASCADE,
    CHECK ((done_at IS NOT NULL) = (state IN
        ('parked', 'answered', 'truncated', 'bounded', 'handed_off', 'cancelled', 'rejected')))
);
-- Each turn leaves half a dozen dead rows in the small indexes below, and every sweep walks past those that are left.
ALTER TABLE turns SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
COMMENT ON COLUMN turns.epoch IS 'The fence: every change of owner adds one; a statement with an older epoch touches no row.';
COMMENT ON COLUMN turns.cuts IS 'Length in characters of each content frame: with content, every frame can be told again.';
COMMENT ON COLUMN turns.closing IS 'Content of the terminal frame: the bounded reply, or tags that close a cut answer.';
CREATE INDEX turns_open ON turns (tenant_id, conversation_id, seq) WHERE done_at IS NULL;
CREATE INDEX turns_upkeep ON turns (state, lease_until, hinted_at) WHERE done_at IS NULL;

-- One primary and one fallback call a turn: the primary key is the guarantee. Written before the call.
CREATE TABLE attempts (
    turn_id        uuid NOT NULL REFERENCES turns ON DELETE CASCADE,
    ordinal        smallint NOT NULL CHECK (ordinal IN (1, 2)),
    epoch          int NOT NULL,
    model          text NOT NULL,
    rescue         boolean NOT NULL DEFAULT false,
    state          text NOT NULL DEFAULT 'reserved' CHECK (state IN ('reserved', 'streaming', 'succeeded', 'failed', 'abandoned')),
    error          text,
    input_tokens   int,
    output_tokens  int,
    confidence     real,
    turns_cut      smallint NOT NULL DEFAULT 0,
    reserved_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    PRIMARY KEY (turn_id, ordinal)
);

CREATE TABLE turn_events (
    event_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    turn_id     uuid NOT NULL REFERENCES turns ON DELETE CASCADE,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    from_state  text,
    to_state    text NOT NULL,
    epoch       int NOT NULL,
    actor       text NOT NULL,
    note        text
);
COMMENT ON TABLE turn_events IS 'Append-only history: one row for each transition, never a message text.';
CREATE INDEX turn_events_turn ON turn_events (turn_id, event_id);

CREATE TABLE idempotency (
    tenant_id        text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    key              text NOT NULL,
    body_sha256      text NOT NULL,
    conversation_id  text NOT NULL,
    turn_id          uuid NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_turn ON idempotency (tenant_id, turn_id);
COMMENT ON TABLE idempotency IS 'Which message a key stands for. Reserved before the event is produced, so that it survives everything.';

CREATE TABLE outbox (
    outbox_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic         text NOT NULL,
    key           bytea,
    headers       jsonb NOT NULL,
    value         bytea NOT NULL,
    turn_id       uuid,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at  timestamptz
);
CREATE INDEX outbox_due ON outbox (outbox_id) WHERE published_at IS NULL;

CREATE TABLE dead_letters (
    dead_letter_id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    turn_id          uuid,
    tenant_id        text,
    conversation_id  text,
    reason           text NOT NULL,
    stage            text NOT NULL,
    state            text NOT NULL DEFAULT 'unanswered' CHECK (state IN
        ('unanswered', 'answered_by_fallback', 'replayed', 'obsolete', 'discarded')),
    error            text,
    epoch            int,
    kafka_topic      text,
    kafka_partition  int,
    kafka_offset     bigint,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letters_turn ON dead_letters (turn_id);
CREATE INDEX dead_letters_reason ON dead_letters (state, reason, created_at);
CREATE UNIQUE INDEX dead_letters_record ON dead_letters (kafka_topic, kafka_partition, kafka_offset) WHERE turn_id IS NULL;
"""

DOWNGRADE = """
DROP TABLE dead_letters, outbox, idempotency, turn_events, attempts, turns, conversations, site_keys, api_keys, tenants;
DROP EXTENSION IF EXISTS vector;
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
