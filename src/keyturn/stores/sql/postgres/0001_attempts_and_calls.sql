-- One row per attempt, and one per call. Times are Unix milliseconds, money whole nano-dollars.
CREATE TABLE keyturn_attempts (
    id text PRIMARY KEY,
    instance text NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'final', 'estimated')),
    call text NOT NULL,
    at bigint NOT NULL,
    caller text NOT NULL,
    route text NOT NULL,
    role text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    tier integer NOT NULL,
    resend boolean NOT NULL,
    input bigint NOT NULL,
    output bigint NOT NULL,
    charged bigint NOT NULL,
    meaning text NOT NULL,
    status integer,
    ms double precision,
    first_token_ms double precision,
    cached bigint NOT NULL,
    written bigint NOT NULL,
    reasoning bigint NOT NULL,
    exact boolean NOT NULL,
    cost bigint,
    detail text NOT NULL
);
CREATE INDEX keyturn_attempts_at ON keyturn_attempts (at);
CREATE INDEX keyturn_attempts_call ON keyturn_attempts (call);
CREATE INDEX keyturn_attempts_open ON keyturn_attempts (instance, at) WHERE state = 'open';

CREATE TABLE keyturn_calls (
    id text PRIMARY KEY,
    instance text NOT NULL,
    at bigint NOT NULL,
    caller text NOT NULL,
    route text NOT NULL,
    status integer NOT NULL,
    code text NOT NULL,
    ms double precision NOT NULL,
    waited_ms double precision NOT NULL,
    attempts integer NOT NULL,
    stream boolean NOT NULL,
    refusals jsonb,
    notes jsonb
);
CREATE INDEX keyturn_calls_at ON keyturn_calls (at);

-- What was spent before there was a ledger, taken over once from each source.
CREATE TABLE keyturn_spent_before (
    month text NOT NULL, -- 2026-11
    scope text NOT NULL, -- caller/<name> or role/<name>
    source text NOT NULL,
    nano bigint NOT NULL,
    PRIMARY KEY (month, scope, source)
);
