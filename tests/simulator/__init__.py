"""Tests of `keyturn.simulator`."""
