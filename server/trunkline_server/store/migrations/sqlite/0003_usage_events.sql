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
