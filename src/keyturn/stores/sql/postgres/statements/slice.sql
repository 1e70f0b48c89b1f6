-- $1: Unix milliseconds, before which rows may be dropped, $2: rows of each table at most. When the oldest of them began,
-- and until when there are about so many; no row: there is nothing to drop.
SELECT oldest, greatest(least(
    (SELECT at FROM keyturn_attempts WHERE at >= oldest AND at < $1 ORDER BY at OFFSET $2 LIMIT 1),
    (SELECT at FROM keyturn_calls WHERE at >= oldest AND at < $1 ORDER BY at OFFSET $2 LIMIT 1),
    $1
), oldest + 1) AS until
FROM (
    SELECT least(
        (SELECT at FROM keyturn_attempts WHERE at < $1 AND state <> 'open' ORDER BY at LIMIT 1),
        (SELECT at FROM keyturn_calls WHERE at < $1 ORDER BY at LIMIT 1)
    ) AS oldest
) AS found
WHERE oldest IS NOT NULL
