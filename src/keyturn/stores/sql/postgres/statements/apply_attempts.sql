-- $1: a JSON array of journal rows, $2: the instance. The last word on each id is taken: an end before an intent.
WITH line AS (
    SELECT value -> 0 AS own, value -> 1 AS shared, place
    FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS given (value, place)
    WHERE value -> 1 ->> 0 IN ('i', 'f') AND value -> 0 ->> 0 IS NOT NULL
), latest AS (
    SELECT DISTINCT ON (own ->> 0) own, shared
    FROM line
    ORDER BY own ->> 0, shared ->> 0, place DESC -- `f` sorts before `i`
)
INSERT INTO keyturn_attempts AS known (
    id, instance, state, call, at, caller, route, role, provider, model, key, fingerprint, tier, resend,
    input, output, charged, meaning, status, ms, first_token_ms, cached, written, reasoning, exact, cost, detail
)
SELECT
    own ->> 0, $2, CASE shared ->> 0 WHEN 'f' THEN 'final' ELSE 'open' END, own ->> 1, (own ->> 2)::bigint, shared ->> 1, shared ->> 2,
    shared ->> 3, shared ->> 4, shared ->> 5, shared ->> 6, shared ->> 7, (shared ->> 8)::integer, (shared ->> 9)::boolean,
    (own ->> 3)::bigint, (own ->> 4)::bigint, (own ->> 5)::bigint, coalesce(shared ->> 10, ''), (shared ->> 11)::integer,
    (own ->> 7)::double precision, (own ->> 8)::double precision, coalesce((own ->> 9)::bigint, 0),
    coalesce((own ->> 10)::bigint, 0), coalesce((own ->> 11)::bigint, 0), coalesce((shared ->> 12)::boolean, false),
    (own ->> 6)::bigint, coalesce(shared ->> 13, '')
FROM latest
WHERE
    ((own ->> 2)::bigint < (SELECT at FROM keyturn_kept_from)) IS NOT TRUE
    OR EXISTS (SELECT 1 FROM keyturn_attempts AS there WHERE there.id = own ->> 0)
ORDER BY own ->> 0
ON CONFLICT (id) DO UPDATE SET
    state = 'final', at = excluded.at, resend = excluded.resend, input = excluded.input, output = excluded.output, charged = excluded.charged,
    meaning = excluded.meaning, status = excluded.status, ms = excluded.ms,
    first_token_ms = excluded.first_token_ms, cached = excluded.cached, written = excluded.written,
    reasoning = excluded.reasoning, exact = excluded.exact, cost = excluded.cost, detail = excluded.detail
WHERE excluded.state = 'final' AND known.state <> 'final'
