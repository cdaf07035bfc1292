-- What each budget has spent in each of its periods, in nanos of a US dollar. The ledger's sum is
-- the truth; this is it, added up.

CREATE TABLE budget_counters (
    budget text COLLATE "C" NOT NULL,
    -- Whose spending it counts, such as a tenant's or a key's name.
    subject text COLLATE "C" NOT NULL,
    period_start bigint NOT NULL,
    period_end bigint NOT NULL,
    spent_nanos bigint NOT NULL,
    reserved_nanos bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (budget, subject, period_start)
);

CREATE INDEX budget_counters_end ON budget_counters (period_end);
