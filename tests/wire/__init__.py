"""Tests of keyturn.wire."""
