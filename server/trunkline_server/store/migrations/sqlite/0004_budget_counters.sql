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
