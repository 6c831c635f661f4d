"""The `compare` workflow."""
