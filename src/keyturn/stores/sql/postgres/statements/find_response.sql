SELECT id, caller, at, previous, input, response FROM keyturn_responses WHERE caller = $1 AND id = $2
