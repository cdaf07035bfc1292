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
