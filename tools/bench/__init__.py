"""Measures the gateway against a bare relay on the same server and the same client: `make bench`."""
