-- $1, $2: the month, from and until, in Unix milliseconds; $3: its name.
WITH charge AS (
    SELECT caller, role, charged FROM keyturn_attempts WHERE at >= $1 AND at < $2
    UNION ALL
    SELECT caller, role, charged FROM keyturn_usage_sums WHERE at >= $1 AND at < $2
)
SELECT scope, sum(nano)::bigint AS nano
FROM (
    SELECT 'caller/' || caller AS scope, charged AS nano FROM charge WHERE caller <> ''
    UNION ALL
    SELECT 'role/' || role, charged FROM charge WHERE role <> ''
    UNION ALL
    SELECT scope, nano FROM keyturn_spent_before WHERE month = $3
) AS each
GROUP BY scope
HAVING sum(nano) <> 0
