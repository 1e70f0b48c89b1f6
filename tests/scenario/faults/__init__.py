"""The matrix of faults: what is played, and what must come of it, as data from which docs/faults.md is made."""
