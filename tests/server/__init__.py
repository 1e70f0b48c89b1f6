"""Tests of keyturn.server."""
