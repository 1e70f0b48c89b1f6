-- $1, $2: from and until, $3: before this into hours, $4: before this into days, all Unix milliseconds.
-- Attempts move into sums.
WITH gone AS (
    DELETE FROM keyturn_attempts WHERE at >= $1 AND at < $2 AND state <> 'open' RETURNING *
), sized AS (
    SELECT CASE WHEN at < $4 THEN 86400000 WHEN at < $3 THEN 3600000 ELSE 60000 END::bigint AS span, gone.* FROM gone
), folded AS (
    INSERT INTO keyturn_usage_sums AS known (
        span, at, caller, role, key, fingerprint, provider, model,
        attempts, failed, input, cached, output, reasoning, cost, charged, unpriced, estimated
    )
    SELECT
        span, div(at, span)::bigint * span AS began, caller, role, key, fingerprint, provider, model,
        count(*), count(*) FILTER (WHERE meaning <> 'ok'), sum(input), sum(cached), sum(output), sum(reasoning),
        sum(coalesce(cost, 0)), sum(charged), count(*) FILTER (WHERE cost IS NULL AND input + output > 0),
        count(*) FILTER (WHERE NOT exact AND input + output > 0)
    FROM sized
    GROUP BY span, began, caller, role, key, fingerprint, provider, model
    ON CONFLICT (span, at, caller, role, key, fingerprint, provider, model) DO UPDATE SET
        attempts = known.attempts + excluded.attempts, failed = known.failed + excluded.failed,
        input = known.input + excluded.input, cached = known.cached + excluded.cached,
        output = known.output + excluded.output, reasoning = known.reasoning + excluded.reasoning,
        cost = known.cost + excluded.cost, charged = known.charged + excluded.charged,
        unpriced = known.unpriced + excluded.unpriced, estimated = known.estimated + excluded.estimated
)
SELECT count(*), max(at) FROM gone
