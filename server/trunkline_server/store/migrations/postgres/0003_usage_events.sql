-- One row for each call and for each attempt: the columns that queries filter, group and sum by,
-- named as in trunkline.admin.v1.UsageEvent, and the whole event. Numbers of enums are the
-- contract's. Absent text is empty and an absent number 0, as in the event.

CREATE TABLE usage_events (
    event_id text COLLATE "C" NOT NULL PRIMARY KEY,
    kind smallint NOT NULL,
    call_id text COLLATE "C" NOT NULL,
    attempt_number integer NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    trace_id text COLLATE "C" NOT NULL,
    -- When it began and ended, in microseconds since the Unix epoch.
    start_time_us bigint NOT NULL,
    end_time_us bigint NOT NULL,
    -- Who.
    tenant text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    key_name text COLLATE "C" NOT NULL,
    tier text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    -- What, and where it went.
    operation text COLLATE "C" NOT NULL,
    streamed boolean NOT NULL,
    requested_model text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    route text COLLATE "C" NOT NULL,
    strategy smallint NOT NULL,
    provider text COLLATE "C" NOT NULL,
    provider_model text COLLATE "C" NOT NULL,
    deployment text COLLATE "C" NOT NULL,
    region text COLLATE "C" NOT NULL,
    replica text COLLATE "C" NOT NULL,
    snapshot_version text COLLATE "C" NOT NULL,
    -- How it ended.
    outcome smallint NOT NULL,
    error_reason smallint NOT NULL,
    finish_reason smallint NOT NULL,
    http_status integer NOT NULL,
    attempt_count integer NOT NULL,
    retry_count integer NOT NULL,
    fallback_count integer NOT NULL,
    hedge_count integer NOT NULL,
    -- Tokens. The input's counts hold the cached and cache-written ones, the output's the reasoning.
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    -- Cost, in nanos of a US dollar.
    cost_input_nanos bigint NOT NULL,
    cost_output_nanos bigint NOT NULL,
    cost_total_nanos bigint NOT NULL,
    expected_cost_nanos bigint NOT NULL,
    saved_cost_nanos bigint NOT NULL,
    cost_unpriced boolean NOT NULL,
    cost_estimated boolean NOT NULL,
    -- Where the time went, in microseconds.
    duration_us bigint NOT NULL,
    queue_us bigint NOT NULL,
    decide_us bigint NOT NULL,
    upstream_us bigint NOT NULL,
    first_token_us bigint NOT NULL,
    inter_chunk_mean_us bigint NOT NULL,
    chunk_count integer NOT NULL,
    cache_status smallint NOT NULL,
    -- An object whose values are text.
    labels jsonb NOT NULL,
    -- The UsageEvent as it was journaled: what is not in a column stands there.
    event bytea NOT NULL
);

CREATE INDEX usage_events_start ON usage_events (start_time_us);

CREATE INDEX usage_events_tenant ON usage_events (tenant, start_time_us);

CREATE INDEX usage_events_call ON usage_events (call_id);
