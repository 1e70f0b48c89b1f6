-- The snapshot of live state: what a gateway without Redis must find again after a restart.
-- kind: head (one row: when it was written), mark, use, limit, faults, cycle. value: JSON, moments in Unix seconds.
CREATE TABLE live_state (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
