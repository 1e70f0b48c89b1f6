-- $1: by what, $2, $3: from and until, Unix milliseconds, $4: rows at most, $5: only this name, empty for all.
-- Of single attempts, and of the sums that took the place of older ones: of a span that begins in the time asked for.
WITH part AS (
    SELECT
        CASE $1::text
            WHEN 'key' THEN key
            WHEN 'caller' THEN caller
            WHEN 'model' THEN provider || '/' || model
            WHEN 'day' THEN to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
            ELSE call
        END AS name,
        at, 1 AS attempts, (meaning <> 'ok')::int AS failed, input, cached, output, reasoning, coalesce(cost, 0) AS cost,
        (cost IS NULL AND input + output > 0)::int AS unpriced, (NOT exact AND input + output > 0)::int AS estimated
    FROM keyturn_attempts
    WHERE at >= $2 AND at < $3 AND state <> 'open' AND ($1 <> 'call' OR $5 = '' OR call = $5)
    UNION ALL
    SELECT
        CASE $1::text
            WHEN 'key' THEN key
            WHEN 'caller' THEN caller
            WHEN 'model' THEN provider || '/' || model
            ELSE to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
        END,
        at, attempts, failed, input, cached, output, reasoning, cost, unpriced, estimated
    FROM keyturn_usage_sums
    WHERE at >= $2 AND at < $3 AND $1 <> 'call'
    UNION ALL
    SELECT id, at, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM keyturn_calls
    WHERE $1 = 'call' AND at >= $2 AND at < $3 AND attempts = 0 AND ($5 = '' OR id = $5)
)
SELECT
    name, sum(attempts)::bigint AS attempts, sum(failed)::bigint AS failed, sum(input)::bigint AS input,
    sum(cached)::bigint AS cached, sum(output)::bigint AS output, sum(reasoning)::bigint AS reasoning,
    sum(cost)::bigint AS cost, sum(unpriced)::bigint AS unpriced, sum(estimated)::bigint AS estimated
FROM part
WHERE $5 = '' OR name = $5
GROUP BY name
ORDER BY
    CASE WHEN $1 = 'call' THEN max(at) ELSE sum(input + output) END DESC,
    CASE WHEN $1 = 'call' THEN name END DESC,
    name COLLATE "C"
LIMIT $4
