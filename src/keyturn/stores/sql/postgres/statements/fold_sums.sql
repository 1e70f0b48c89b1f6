-- $1: minutes before this go into hours, $2: hours before this into days, Unix milliseconds.
WITH gone AS (
    DELETE FROM keyturn_usage_sums
    WHERE (span = 60000 AND at < $1) OR (span < 86400000 AND at < $2)
    RETURNING *
), sized AS (
    SELECT CASE WHEN at < $2 THEN 86400000 ELSE 3600000 END::bigint AS wider, gone.* FROM gone
), folded AS (
    INSERT INTO keyturn_usage_sums AS known (
        span, at, caller, role, key, fingerprint, provider, model,
        attempts, failed, input, cached, output, reasoning, cost, charged, unpriced, estimated
    )
    SELECT
        wider, div(at, wider)::bigint * wider AS began, caller, role, key, fingerprint, provider, model,
        sum(attempts), sum(failed), sum(input), sum(cached), sum(output), sum(reasoning), sum(cost), sum(charged),
        sum(unpriced), sum(estimated)
    FROM sized
    GROUP BY wider, began, caller, role, key, fingerprint, provider, model
    ON CONFLICT (span, at, caller, role, key, fingerprint, provider, model) DO UPDATE SET
        attempts = known.attempts + excluded.attempts, failed = known.failed + excluded.failed,
        input = known.input + excluded.input, cached = known.cached + excluded.cached,
        output = known.output + excluded.output, reasoning = known.reasoning + excluded.reasoning,
        cost = known.cost + excluded.cost, charged = known.charged + excluded.charged,
        unpriced = known.unpriced + excluded.unpriced, estimated = known.estimated + excluded.estimated
)
SELECT count(*) FROM gone
