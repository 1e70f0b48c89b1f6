-- Sums that take the place of single attempts when these are dropped: by minute, then by hour, then by day (UTC).
-- An attempt is either a row of `attempts` or part of exactly one row here.

CREATE TABLE usage_sums (
    span INTEGER NOT NULL,          -- milliseconds: 60000, 3600000 or 86400000
    at INTEGER NOT NULL,            -- the beginning of the span
    caller TEXT NOT NULL,
    role TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    input INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    PRIMARY KEY (span, at, caller, role, key, fingerprint, provider, model)
) WITHOUT ROWID;
