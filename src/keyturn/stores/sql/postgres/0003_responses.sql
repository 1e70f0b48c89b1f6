-- Kept answers of the Responses API.
CREATE TABLE keyturn_responses (
    caller text NOT NULL,
    id text NOT NULL,
    at bigint NOT NULL,
    previous text NOT NULL,
    input bytea NOT NULL,
    response bytea NOT NULL,
    PRIMARY KEY (caller, id)
);
CREATE INDEX keyturn_responses_at ON keyturn_responses (at);
