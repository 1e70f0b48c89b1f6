-- Sums that take the place of single attempts when these are dropped: by minute, then by hour, then by day (UTC).
-- An attempt is either a row of keyturn_attempts or part of exactly one row here.
CREATE TABLE keyturn_usage_sums (
    span bigint NOT NULL, -- milliseconds: 60000, 3600000 or 86400000
    at bigint NOT NULL, -- the beginning of the span
    caller text NOT NULL,
    role text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    attempts bigint NOT NULL,
    failed bigint NOT NULL,
    input bigint NOT NULL,
    cached bigint NOT NULL,
    output bigint NOT NULL,
    reasoning bigint NOT NULL,
    cost bigint NOT NULL,
    charged bigint NOT NULL,
    unpriced bigint NOT NULL,
    estimated bigint NOT NULL,
    PRIMARY KEY (span, at, caller, role, key, fingerprint, provider, model)
);
CREATE INDEX keyturn_usage_sums_at ON keyturn_usage_sums (at);

-- What begins before this and comes only now has been counted already, or is too old to count.
CREATE TABLE keyturn_kept_from (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    at bigint NOT NULL
);
INSERT INTO keyturn_kept_from (at) VALUES (0);
