"""Real command line tools against Keyturn: installed at pinned versions, run through every translation of formats."""
