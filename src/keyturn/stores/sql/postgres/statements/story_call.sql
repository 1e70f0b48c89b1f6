-- $1: the call.
SELECT id, at, caller, route, status, code, ms, waited_ms, attempts, stream, refusals, notes
FROM keyturn_calls
WHERE id = $1
