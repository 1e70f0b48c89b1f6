-- The ledger: one row for each attempt and each call. Times are Unix milliseconds (UTC), money whole nano-dollars.

CREATE TABLE attempts (
    id TEXT PRIMARY KEY NOT NULL,
    call TEXT NOT NULL,
    instance TEXT NOT NULL,         -- the data folder of the process that made it
    state TEXT NOT NULL,            -- open, final, or estimated (its process died: it counts as it was held)
    at INTEGER NOT NULL,
    caller TEXT NOT NULL,
    route TEXT NOT NULL,
    role TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    tier INTEGER NOT NULL,
    resend INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    meaning TEXT NOT NULL,
    status INTEGER,
    ms REAL,
    first_token_ms REAL,
    cached INTEGER NOT NULL,
    written INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    exact INTEGER NOT NULL,
    cost INTEGER,                   -- NULL: nobody knows the price
    detail TEXT NOT NULL
);
CREATE INDEX attempts_by_call ON attempts (call);
CREATE INDEX attempts_by_time ON attempts (at);
CREATE INDEX attempts_under_way ON attempts (instance, at) WHERE state = 'open';

CREATE TABLE calls (
    id TEXT PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL,
    caller TEXT NOT NULL,
    route TEXT NOT NULL,
    status INTEGER NOT NULL,
    code TEXT NOT NULL,
    ms REAL NOT NULL,
    waited_ms REAL NOT NULL,
    attempts INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    refusals TEXT,                  -- a JSON array; NULL for none
    notes TEXT
);
CREATE INDEX calls_by_time ON calls (at);

-- What was spent before there was a ledger, taken over once from each source.
CREATE TABLE spent_before (
    month TEXT NOT NULL,            -- 2026-11
    scope TEXT NOT NULL,            -- caller/<name> or role/<name>
    source TEXT NOT NULL,
    nano INTEGER NOT NULL,
    PRIMARY KEY (month, scope, source)
) WITHOUT ROWID;
