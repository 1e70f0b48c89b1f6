-- $1: the call. In the order in which they were made.
SELECT
    CASE state WHEN 'open' THEN 'i' ELSE 'f' END AS kind, id, call, at, caller, route, role, provider, model, key,
    fingerprint, tier, resend, input, output, charged, meaning, status, ms, first_token_ms, cached, written,
    reasoning, exact, cost, detail
FROM keyturn_attempts
WHERE call = $1
ORDER BY at, resend, id
