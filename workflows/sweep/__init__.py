"""The `sweep` workflow."""
