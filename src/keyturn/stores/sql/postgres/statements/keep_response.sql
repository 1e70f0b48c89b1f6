INSERT INTO keyturn_responses (id, caller, at, previous, input, response) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (caller, id) DO UPDATE SET
    at = excluded.at, previous = excluded.previous, input = excluded.input, response = excluded.response
