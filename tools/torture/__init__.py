"""The long checks, which `make test` runs at a small size and `make torture` at full size."""
