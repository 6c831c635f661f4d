"""The schema of workflow files."""
