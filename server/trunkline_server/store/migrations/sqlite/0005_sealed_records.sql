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
