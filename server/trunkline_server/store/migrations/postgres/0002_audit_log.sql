-- Who did what, each entry chained to the one before by its hash. Entries are only ever added;
-- the triggers stop mistakes, the chain finds intent.

CREATE TABLE audit_log (
    -- 1, 2, 3, ... without gaps: one that is missing was removed.
    seq bigint PRIMARY KEY,
    at bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    actor text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL,
    -- Digests of the resource; null where there was none, before or after.
    before_digest bytea,
    after_digest bytea,
    -- json, not jsonb: the hash covers its bytes.
    details json NOT NULL,
    prev_hash bytea NOT NULL,
    hash bytea NOT NULL
);

CREATE INDEX audit_log_at ON audit_log (at);

CREATE INDEX audit_log_resource ON audit_log (resource, seq);

CREATE INDEX audit_log_actor ON audit_log (actor, seq);

CREATE INDEX audit_log_tenant ON audit_log (tenant, seq);

CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log takes new entries only' USING ERRCODE = 'restrict_violation';
END;
$$;

CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
