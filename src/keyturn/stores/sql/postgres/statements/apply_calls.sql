-- $1: a JSON array of journal rows, $2: the instance.
INSERT INTO keyturn_calls (
    id, instance, at, caller, route, status, code, ms, waited_ms, attempts, stream, refusals, notes
)
SELECT
    v ->> 1, $2, (v ->> 2)::bigint, v ->> 3, v ->> 4, (v ->> 5)::integer, v ->> 6,
    coalesce((v ->> 7)::double precision, 0), coalesce((v ->> 8)::double precision, 0), (v ->> 9)::integer, (v ->> 10)::boolean,
    nullif(v -> 11, '[]'::jsonb), nullif(v -> 12, '[]'::jsonb)
FROM jsonb_array_elements($1::jsonb) AS given (v)
WHERE v ->> 0 = 'c' AND v ->> 1 IS NOT NULL AND (v ->> 2)::bigint >= (SELECT at FROM keyturn_kept_from)
ORDER BY v ->> 1
ON CONFLICT (id) DO NOTHING
