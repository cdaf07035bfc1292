-- Made by `make generate` from migrations/sqlite.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

-- Documents of the control plane, and the counter that orders their changes.
-- Times are microseconds since the Unix epoch, everywhere.

CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('revision', 0);

CREATE TABLE resources (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    -- Whose it is; empty means the operator's.
    tenant TEXT NOT NULL,
    -- Another one after every change.
    etag TEXT NOT NULL,
    -- The revision that changed it last.
    revision INTEGER NOT NULL,
    body TEXT NOT NULL CHECK (json_valid(body)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX resources_tenant ON resources (tenant, kind, name);

CREATE INDEX resources_revision ON resources (kind, revision);

-- What each revision touched, for as far back as writers keep it.
CREATE TABLE changes (
    revision INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (revision, kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING version_num;


-- Running upgrade 0001 -> 0002

-- Who did what, each entry chained to the one before by its hash. Entries are only ever added;
-- the triggers stop mistakes, the chain finds intent.

CREATE TABLE audit_log (
    -- 1, 2, 3, ... without gaps: one that is missing was removed.
    seq INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    -- Digests of the resource; null where there was none, before or after.
    before_digest BLOB,
    after_digest BLOB,
    details TEXT NOT NULL CHECK (json_valid(details)),
    prev_hash BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;

CREATE INDEX audit_log_at ON audit_log (at);

CREATE INDEX audit_log_resource ON audit_log (resource, seq);

CREATE INDEX audit_log_actor ON audit_log (actor, seq);

CREATE INDEX audit_log_tenant ON audit_log (tenant, seq);

CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'audit_log takes new entries only');
END;

CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'audit_log takes new entries only');
END;

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';


-- Running upgrade 0002 -> 0003

-- One row for each call and for each attempt: the columns that queries filter, group and sum by,
-- named as in trunkline.admin.v1.UsageEvent, and the whole event. Numbers of enums are the
-- contract's. Absent text is empty and an absent number 0, as in the event.

CREATE TABLE usage_events (
    event_id TEXT NOT NULL PRIMARY KEY,
    kind INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    attempt_number INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    -- When it began and ended, in microseconds since the Unix epoch.
    start_time_us INTEGER NOT NULL,
    end_time_us INTEGER NOT NULL,
    -- Who.
    tenant TEXT NOT NULL,
    project TEXT NOT NULL,
    key_name TEXT NOT NULL,
    tier TEXT NOT NULL,
    user_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    -- What, and where it went.
    operation TEXT NOT NULL,
    streamed INTEGER NOT NULL,
    requested_model TEXT NOT NULL,
    model TEXT NOT NULL,
    route TEXT NOT NULL,
    strategy INTEGER NOT NULL,
    provider TEXT NOT NULL,
    provider_model TEXT NOT NULL,
    deployment TEXT NOT NULL,
    region TEXT NOT NULL,
    replica TEXT NOT NULL,
    snapshot_version TEXT NOT NULL,
    -- How it ended.
    outcome INTEGER NOT NULL,
    error_reason INTEGER NOT NULL,
    finish_reason INTEGER NOT NULL,
    http_status INTEGER NOT NULL,
    attempt_count INTEGER NOT NULL,
    retry_count INTEGER NOT NULL,
    fallback_count INTEGER NOT NULL,
    hedge_count INTEGER NOT NULL,
    -- Tokens. The input's counts hold the cached and cache-written ones, the output's the reasoning.
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    -- Cost, in nanos of a US dollar.
    cost_input_nanos INTEGER NOT NULL,
    cost_output_nanos INTEGER NOT NULL,
    cost_total_nanos INTEGER NOT NULL,
    expected_cost_nanos INTEGER NOT NULL,
    saved_cost_nanos INTEGER NOT NULL,
    cost_unpriced INTEGER NOT NULL,
    cost_estimated INTEGER NOT NULL,
    -- Where the time went, in microseconds.
    duration_us INTEGER NOT NULL,
    queue_us INTEGER NOT NULL,
    decide_us INTEGER NOT NULL,
    upstream_us INTEGER NOT NULL,
    first_token_us INTEGER NOT NULL,
    inter_chunk_mean_us INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL,
    cache_status INTEGER NOT NULL,
    -- An object whose values are text.
    labels TEXT NOT NULL CHECK (json_valid(labels)),
    -- The UsageEvent as it was journaled: what is not in a column stands there.
    event BLOB NOT NULL
) STRICT;

CREATE INDEX usage_events_start ON usage_events (start_time_us);

CREATE INDEX usage_events_tenant ON usage_events (tenant, start_time_us);

CREATE INDEX usage_events_call ON usage_events (call_id);

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';


-- Running upgrade 0003 -> 0004

-- What each budget has spent in each of its periods, in nanos of a US dollar. The ledger's sum is
-- the truth; this is it, added up.

CREATE TABLE budget_counters (
    budget TEXT NOT NULL,
    -- Whose spending it counts, such as a tenant's or a key's name.
    subject TEXT NOT NULL,
    period_start INTEGER NOT NULL,
    period_end INTEGER NOT NULL,
    spent_nanos INTEGER NOT NULL,
    reserved_nanos INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (budget, subject, period_start)
) STRICT, WITHOUT ROWID;

CREATE INDEX budget_counters_end ON budget_counters (period_end);

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';


-- Running upgrade 0004 -> 0005

-- Secrets that the router keeps, each encrypted before it comes here: the database never sees a
-- value, nor the key that opens it.

CREATE TABLE sealed_records (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    -- Another one after every write.
    etag TEXT NOT NULL,
    sealed BLOB NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

UPDATE alembic_version SET version_num='0005' WHERE alembic_version.version_num = '0004';


-- Running upgrade 0005 -> 0006

-- The service that called, which budgets of services begin with. Events kept before say it in
-- `event` alone.

ALTER TABLE usage_events ADD COLUMN service TEXT NOT NULL DEFAULT '';

UPDATE alembic_version SET version_num='0006' WHERE alembic_version.version_num = '0005';


-- Running upgrade 0006 -> 0007

-- What is not counted in tokens. Of events kept before, `event` alone says it.

ALTER TABLE usage_events ADD COLUMN output_images INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN input_audio_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN output_audio_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN input_characters INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_events ADD COLUMN search_units INTEGER NOT NULL DEFAULT 0;

UPDATE alembic_version SET version_num='0007' WHERE alembic_version.version_num = '0006';

