-- Secrets that the router keeps, each encrypted before it comes here: the database never sees a
-- value, nor the key that opens it.

CREATE TABLE sealed_records (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- Another one after every write.
    etag text NOT NULL,
    sealed bytea NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (kind, name)
);
