-- $1: a JSON array of journal rows, $2: the instance. The last word on each id is taken: an end before an intent.
WITH line AS (
    SELECT value AS v, place
    FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS given (value, place)
    WHERE value ->> 0 IN ('i', 'f') AND value ->> 1 IS NOT NULL
), latest AS (
    SELECT DISTINCT ON (v ->> 1) v
    FROM line
    ORDER BY v ->> 1, v ->> 0, place DESC -- `f` sorts before `i`
)
INSERT INTO keyturn_attempts AS known (
    id, instance, state, call, at, caller, route, role, provider, model, key, fingerprint, tier, resend,
    input, output, charged, meaning, status, ms, first_token_ms, cached, written, reasoning, exact, cost, detail
)
SELECT
    v ->> 1, $2, CASE v ->> 0 WHEN 'f' THEN 'final' ELSE 'open' END, v ->> 2, (v ->> 3)::bigint, v ->> 4, v ->> 5,
    v ->> 6, v ->> 7, v ->> 8, v ->> 9, v ->> 10, (v ->> 11)::integer, (v ->> 12)::boolean,
    (v ->> 13)::bigint, (v ->> 14)::bigint, (v ->> 15)::bigint, coalesce(v ->> 16, ''), (v ->> 17)::integer,
    (v ->> 18)::double precision, (v ->> 19)::double precision, coalesce((v ->> 20)::bigint, 0),
    coalesce((v ->> 21)::bigint, 0), coalesce((v ->> 22)::bigint, 0), coalesce((v ->> 23)::boolean, false),
    (v ->> 24)::bigint, coalesce(v ->> 25, '')
FROM latest
WHERE
    ((v ->> 3)::bigint < (SELECT at FROM keyturn_kept_from)) IS NOT TRUE
    OR EXISTS (SELECT 1 FROM keyturn_attempts AS there WHERE there.id = v ->> 1)
ORDER BY v ->> 1
ON CONFLICT (id) DO UPDATE SET
    state = 'final', at = excluded.at, resend = excluded.resend, input = excluded.input, output = excluded.output, charged = excluded.charged,
    meaning = excluded.meaning, status = excluded.status, ms = excluded.ms,
    first_token_ms = excluded.first_token_ms, cached = excluded.cached, written = excluded.written,
    reasoning = excluded.reasoning, exact = excluded.exact, cost = excluded.cost, detail = excluded.detail
WHERE excluded.state = 'final' AND known.state <> 'final'
