"""MLflow as a projection of a run's files."""
