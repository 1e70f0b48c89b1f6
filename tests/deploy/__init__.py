"""Tests of what deploys Keyturn: image, compose file, unit, alerts, dashboard."""
