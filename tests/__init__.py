"""The tests; they mirror `src/keyturn`. A package, so that `from tests.support import virtual` works everywhere."""
