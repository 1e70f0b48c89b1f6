-- $1: the month, $2: scopes, $3: nano-dollars of each, $4: the source.
INSERT INTO keyturn_spent_before (month, scope, source, nano)
SELECT $1, scope, $4, nano FROM unnest($2::text[], $3::bigint[]) AS given (scope, nano)
ORDER BY scope
ON CONFLICT DO NOTHING
