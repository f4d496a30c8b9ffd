"""Whole dead letters, replay jobs and their audit, breakers, a budget for rescues, coalesced turns."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE api_keys DROP CONSTRAINT api_keys_scopes_check;
ALTER TABLE api_keys ADD CONSTRAINT api_keys_scopes_check
    CHECK (scopes <@ ARRAY['turns', 'operator', 'installation'] AND cardinality(scopes) > 0);

ALTER TABLE turns ADD COLUMN replay_of uuid;
ALTER TABLE turns ADD COLUMN replay_mode text CHECK (replay_mode IN ('shadow', 'deliver', 'compare'));
ALTER TABLE turns ADD COLUMN coalesced_into uuid;
COMMENT ON COLUMN turns.replay_of IS 'The dead letter this turn answers anew.';
COMMENT ON COLUMN turns.coalesced_into IS 'The earlier turn of its conversation whose answer is also this turn''s.';
CREATE INDEX turns_coalesced ON turns (coalesced_into) WHERE coalesced_into IS NOT NULL;

-- However many turns are queued, each sweep finds those that are due, and walks past no other.
DROP INDEX turns_upkeep;
CREATE INDEX turns_upkeep ON turns (state, deadline_at) WHERE done_at IS NULL;
CREATE INDEX turns_hinted ON turns (hinted_at) WHERE state IN ('queued', 'rescue');
CREATE INDEX turns_queued ON turns (head_at) WHERE state = 'queued';

-- The record as it came from Kafka. Kept until the turn has ended well; with a dead letter as long as that.
CREATE TABLE turn_records (
    turn_id      uuid PRIMARY KEY REFERENCES turns ON DELETE CASCADE,
    value        bytea NOT NULL,
    headers      bytea[] NOT NULL DEFAULT '{}',
    produced_ms  bigint NOT NULL
);
COMMENT ON COLUMN turn_records.headers IS 'Name, value, name, value, …; a NULL is a header without a value.';

ALTER TABLE attempts ADD COLUMN policy int;
ALTER TABLE attempts ADD COLUMN prompt text;
COMMENT ON COLUMN attempts.prompt IS 'Version of the agent''s instructions the call was made with.';

ALTER TABLE outbox ADD COLUMN original_headers bytea[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN outbox.original_headers IS 'Headers of another record that go along unchanged, before ours: name, value, ….';

ALTER TABLE dead_letters ADD COLUMN agent text;
ALTER TABLE dead_letters ADD COLUMN versions jsonb NOT NULL DEFAULT '{}';
ALTER TABLE dead_letters ADD COLUMN times int NOT NULL DEFAULT 1;
ALTER TABLE dead_letters ADD COLUMN replays int NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN replay_turn uuid;
ALTER TABLE dead_letters ADD COLUMN copy_partition int;
ALTER TABLE dead_letters ADD COLUMN copy_offset bigint;
COMMENT ON COLUMN dead_letters.times IS 'How often the turn left a lane; reason and stage are those of the last time.';
COMMENT ON COLUMN dead_letters.replays IS 'How often an answer was asked for again, to be shown.';
COMMENT ON COLUMN dead_letters.replay_turn IS 'The turn of the latest such replay.';
COMMENT ON COLUMN dead_letters.copy_offset IS 'Where its latest copy is on fairlead.turns.dlq.';
DELETE FROM dead_letters older USING dead_letters newer
    WHERE older.turn_id = newer.turn_id
      AND (older.created_at, older.dead_letter_id) < (newer.created_at, newer.dead_letter_id);
DROP INDEX dead_letters_turn;
CREATE UNIQUE INDEX dead_letters_turn ON dead_letters (turn_id) WHERE turn_id IS NOT NULL;
CREATE INDEX dead_letters_listed ON dead_letters (tenant_id, created_at DESC, dead_letter_id);

-- Records that never became turns: their bytes, so that they can be shown and sent again.
CREATE TABLE dead_records (
    dead_letter_id  uuid PRIMARY KEY REFERENCES dead_letters ON DELETE CASCADE,
    key             bytea,
    value           bytea,
    headers         bytea[] NOT NULL DEFAULT '{}'
);

CREATE TABLE replay_jobs (
    job_id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id     text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    filter        text NOT NULL CHECK (filter <> ''),
    mode          text NOT NULL CHECK (mode IN ('shadow', 'deliver', 'compare')),
    rate          real NOT NULL CHECK (rate > 0),
    most          int NOT NULL CHECK (most > 0),
    stop_percent  real NOT NULL CHECK (stop_percent > 0 AND stop_percent <= 100),
    late          boolean NOT NULL DEFAULT false,
    state         text NOT NULL DEFAULT 'running' CHECK (state IN
        ('running', 'paused', 'finished', 'aborted', 'stopped')),
    reason        text,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at      timestamptz,
    owner         text,
    lease_until   timestamptz
);
COMMENT ON COLUMN replay_jobs.rate IS 'Dead letters a second, at most.';
COMMENT ON COLUMN replay_jobs.stop_percent IS 'Stops by itself once more than this share of its replays failed.';
COMMENT ON COLUMN replay_jobs.late IS 'Answer also where the conversation has moved on.';
CREATE INDEX replay_jobs_open ON replay_jobs (created_at) WHERE state IN ('running', 'paused');
CREATE INDEX replay_jobs_listed ON replay_jobs (tenant_id, created_at DESC);

CREATE TABLE replay_items (
    job_id           uuid NOT NULL REFERENCES replay_jobs ON DELETE CASCADE,
    position         int NOT NULL,
    dead_letter_id   uuid NOT NULL,
    conversation_id  text,
    state            text NOT NULL DEFAULT 'waiting' CHECK (state IN
        ('waiting', 'running', 'answered', 'failed', 'skipped')),
    note             text,
    turn_id          uuid,
    started_at       timestamptz,
    ended_at         timestamptz,
    PRIMARY KEY (job_id, position),
    UNIQUE (job_id, dead_letter_id)
);
CREATE INDEX replay_items_open ON replay_items (job_id, position) WHERE state IN ('waiting', 'running');
CREATE INDEX replay_items_next ON replay_items (job_id, conversation_id, position)
    WHERE state IN ('waiting', 'running');
CREATE INDEX replay_items_running ON replay_items (turn_id) WHERE state = 'running';
CREATE INDEX replay_items_letter ON replay_items (dead_letter_id);

CREATE TABLE operator_audit (
    audit_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant_id  text,
    operator   text NOT NULL,
    verb       text NOT NULL,
    subject    text NOT NULL,
    detail     jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE operator_audit IS 'Who did what. Append-only: the trigger below refuses to change or remove a row.';
CREATE INDEX operator_audit_listed ON operator_audit (tenant_id, audit_id DESC);
CREATE INDEX operator_audit_subject ON operator_audit (subject, audit_id);
CREATE FUNCTION operator_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'operator_audit is append-only'; END $$;
CREATE TRIGGER operator_audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_audit
    EXECUTE FUNCTION operator_audit_is_append_only();

-- One row a lane whose primary was ever in doubt, shared by all its workers.
CREATE TABLE breakers (
    lane        text PRIMARY KEY,
    state       text NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open')),
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    retry_at    timestamptz,
    probe_until timestamptz,
    forced      text CHECK (forced IN ('closed', 'open')),
    away_until  timestamptz,
    reason      text,
    changed_by  text NOT NULL
);
COMMENT ON COLUMN breakers.retry_at IS 'From then on one turn at a time may probe the primary of an open lane.';
COMMENT ON COLUMN breakers.probe_until IS 'A probe is under way until then at most.';
COMMENT ON COLUMN breakers.forced IS 'Set by hand; wins over what is measured.';
COMMENT ON COLUMN breakers.away_until IS 'A drill: until then every primary call of the lane fails without being made.';

-- What a burst of rescues may cost at the frontier: a token bucket, filled on the database's clock.
CREATE TABLE rescue_budget (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    tokens       double precision NOT NULL,
    taken        int NOT NULL DEFAULT 0,
    refilled_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN rescue_budget.taken IS 'How many tokens the latest statement took, for that statement to read.';

-- What retention goes by.
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;
CREATE INDEX conversations_by_age ON conversations (created_at, tenant_id, conversation_id);
CREATE INDEX idempotency_by_age ON idempotency (created_at, tenant_id, key);
CREATE INDEX dead_letters_done ON dead_letters (updated_at) WHERE state <> 'unanswered';
CREATE INDEX replay_jobs_ended ON replay_jobs (ended_at) WHERE ended_at IS NOT NULL;
"""

DOWNGRADE = """
DROP INDEX outbox_published, conversations_by_age, idempotency_by_age, dead_letters_done;
DROP TABLE rescue_budget, breakers, operator_audit, replay_items, replay_jobs, dead_records, turn_records;
DROP FUNCTION operator_audit_is_append_only;
DROP INDEX dead_letters_listed;
DROP INDEX dead_letters_turn;
CREATE INDEX dead_letters_turn ON dead_letters (turn_id);
ALTER TABLE dead_letters DROP COLUMN agent, DROP COLUMN versions, DROP COLUMN times, DROP COLUMN replays,
    DROP COLUMN replay_turn, DROP COLUMN copy_partition, DROP COLUMN copy_offset;
ALTER TABLE outbox DROP COLUMN original_headers;
ALTER TABLE attempts DROP COLUMN policy, DROP COLUMN prompt;
DROP INDEX turns_queued;
DROP INDEX turns_hinted;
DROP INDEX turns_upkeep;
CREATE INDEX turns_upkeep ON turns (state, lease_until, hinted_at) WHERE done_at IS NULL;
DROP INDEX turns_coalesced;
ALTER TABLE turns DROP COLUMN replay_of, DROP COLUMN replay_mode, DROP COLUMN coalesced_into;
UPDATE api_keys SET scopes = array_remove(scopes, 'installation') WHERE scopes <> ARRAY['installation'];
DELETE FROM api_keys WHERE scopes = ARRAY['installation'];
ALTER TABLE api_keys DROP CONSTRAINT api_keys_scopes_check;
ALTER TABLE api_keys ADD CONSTRAINT api_keys_scopes_check
    CHECK (scopes <@ ARRAY['turns', 'operator'] AND cardinality(scopes) > 0);
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
