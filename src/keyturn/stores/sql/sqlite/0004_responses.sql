-- Kept answers of the Responses API.

CREATE TABLE responses (
    caller TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    previous TEXT NOT NULL,         -- the id of the one that it goes on from; empty for none
    input BLOB NOT NULL,
    response BLOB NOT NULL,
    PRIMARY KEY (caller, id)
);
CREATE INDEX responses_by_time ON responses (at);
