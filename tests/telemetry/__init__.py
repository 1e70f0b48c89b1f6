"""Tests of keyturn.telemetry."""
