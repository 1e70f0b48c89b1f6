-- $1: the instance, null for all; $2: Unix milliseconds. What they hold is what they count.
UPDATE keyturn_attempts SET state = 'estimated', meaning = 'crashed'
WHERE id IN (
    SELECT id FROM keyturn_attempts
    WHERE state = 'open' AND at < $2 AND ($1::text IS NULL OR instance = $1)
    ORDER BY id FOR UPDATE
) AND state = 'open'
