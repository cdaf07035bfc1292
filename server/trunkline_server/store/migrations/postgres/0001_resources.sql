-- Documents of the control plane, and the counter that orders their changes.
-- Times are microseconds since the Unix epoch, everywhere. Names compare by code point, so that
-- both databases list them in one order.

CREATE TABLE meta (
    key text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
);

-- Its row is locked by whoever changes a resource: revisions commit in order, without gaps.
INSERT INTO meta (key, value) VALUES ('revision', 0);

CREATE TABLE resources (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- Whose it is; empty means the operator's.
    tenant text COLLATE "C" NOT NULL,
    -- Another one after every change.
    etag text NOT NULL,
    -- The revision that changed it last.
    revision bigint NOT NULL,
    -- json, not jsonb: it comes back byte for byte as it was written.
    body json NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE INDEX resources_tenant ON resources (tenant, kind, name);

CREATE INDEX resources_revision ON resources (kind, revision);

-- What each revision touched, for as far back as writers keep it.
CREATE TABLE changes (
    revision bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    changed_at bigint NOT NULL,
    PRIMARY KEY (revision, kind, name)
);
