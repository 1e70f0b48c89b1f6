"""The official SDKs of all four wire formats against providers that speak each of the four."""
