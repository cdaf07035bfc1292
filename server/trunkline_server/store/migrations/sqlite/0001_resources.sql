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
